//! How far a pull or a push is: for people at a terminal, and for nobody else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hv_image::content::Descriptor;
use hv_image::registry::pull::Progress;

use crate::size::Bytes;

/// Between two pictures.
const PICTURE: Duration = Duration::from_millis(100);
/// Characters of a bar.
const BAR: usize = 30;

/// A line for each blob that is on its way, and one for the whole.
pub struct Bars {
    shown: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    name: String,
    blobs: Vec<Blob>,
    /// Bytes of those that are on their way, by number.
    moving: BTreeMap<usize, u64>,
    done: usize,
    bytes: u64,
    /// Lines of the picture that is to be seen.
    lines: usize,
    last: Option<Instant>,
}

struct Blob {
    name: String,
    size: u64,
}

impl Bars {
    /// Bars for the image of this name.
    pub fn new(name: &str, quiet: bool) -> Bars {
        let state = State { name: name.into(), ..State::default() };
        Bars { shown: !quiet && io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Takes the picture away.
    pub fn finish(&self) {
        let mut state = self.state();
        if self.shown && state.lines > 0 {
            // Nothing can be done about a terminal that is gone.
            let _ = io::stderr().write_all(erase(state.lines).as_bytes());
            state.lines = 0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, mut state: MutexGuard<'_, State>) {
        let due = state.last.is_none_or(|last| last.elapsed() >= PICTURE);
        if self.shown && due {
            let picture = picture(&state);
            let text = erase(state.lines) + &picture;
            state.lines = picture.lines().count();
            state.last = Some(Instant::now());
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

impl Progress for Bars {
    fn plan(&self, blobs: &[&Descriptor]) {
        let mut state = self.state();
        let named = blobs.iter().map(|blob| Blob { name: blob.digest.short(), size: blob.size });
        state.blobs = named.collect();
        self.draw(state);
    }

    fn at(&self, number: usize, bytes: u64) {
        let mut state = self.state();
        state.moving.insert(number, bytes);
        self.draw(state);
    }

    fn done(&self, number: usize, _fetched: bool) {
        let mut state = self.state();
        state.moving.remove(&number);
        state.done += 1;
        state.bytes += state.blobs.get(number).map_or(0, |blob| blob.size);
        self.draw(state);
    }
}

/// Back over a picture of so many lines, and away with it.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r\x1b[J") }
}

fn picture(state: &State) -> String {
    let total: u64 = state.blobs.iter().map(|blob| blob.size).sum();
    let so_far = state.bytes + state.moving.values().sum::<u64>();
    let mut text = format!(
        "{}: {} of {} blobs, {} of {}\n",
        state.name,
        state.done,
        state.blobs.len(),
        Bytes(so_far),
        Bytes(total)
    );
    for (number, bytes) in &state.moving {
        let Some(blob) = state.blobs.get(*number) else { continue };
        let full = (*bytes).min(blob.size) as f64 / blob.size.max(1) as f64;
        let filled = (full * BAR as f64) as usize;
        let (name, bar) = (&blob.name, "#".repeat(filled) + &"-".repeat(BAR - filled));
        let _ = writeln!(text, "  {name} [{bar}] {:>10} of {}", Bytes(*bytes), Bytes(blob.size));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_blob_that_moves() {
        let blob = |name: &str, size| Blob { name: name.into(), size };
        let mut state = State { name: "alpine".into(), ..State::default() };
        state.blobs = vec![blob("aaaa", 4 << 20), blob("bbbb", 0), blob("cccc", 4 << 20)];
        state.moving = BTreeMap::from([(0, 1 << 20), (1, 7)]);
        (state.done, state.bytes) = (1, 4 << 20);
        let text = picture(&state);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "alpine: 1 of 3 blobs, 5.0 MiB of 8 MiB");
        assert_eq!(lines[1], "  aaaa [#######-----------------------]      1 MiB of 4 MiB");
        assert_eq!(lines.len(), 3);
        assert_eq!(erase(3), "\x1b[3A\r\x1b[J");
        assert_eq!(erase(0), "");
    }
}
