//! The mark port: the guest writes a byte, the monitor marks that phase on the host's clock.

use hv_common::phase::MARK_PORT;
use hv_common::{Phase, Timeline};

use super::{Device, Range};

/// Marks the phases that a guest may mark on a timeline; other values are ignored.
pub struct Mark(Timeline);

impl Mark {
    /// Marks on this timeline.
    pub fn new(timeline: Timeline) -> Mark {
        Mark(timeline)
    }
}

impl Device for Mark {
    fn name(&self) -> &str {
        "mark"
    }

    fn range(&self) -> Range {
        Range::ports(MARK_PORT, 1)
    }

    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(phase) = data.first().copied().and_then(Phase::from_guest) {
            self.0.mark(phase);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guest_phases_are_marked() {
        let timeline = Timeline::new().unwrap();
        let mark = Mark::new(timeline.clone());
        for byte in 0..=255 {
            mark.write(0, &[byte]);
        }
        assert!(timeline.at(Phase::Init).is_some() && timeline.at(Phase::Exec).is_some());
        assert_eq!(timeline.at(Phase::Launch), None);
        assert_eq!(timeline.at(Phase::Exit), None);
    }
}
