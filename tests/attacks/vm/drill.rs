//! `hv drill`: what happens in a microVM happens to a kernel of its own.

use hv_common::Kind;

use crate::drill::{Drill, free, stops};
use crate::support;

#[test]
fn every_attempt_hits_the_guests_kernel_alone() {
    if let Some(reason) = support::unavailable(Kind::Vm) {
        return println!("skipped: {reason}");
    }
    let report = Drill::new().run(&["vm"]);
    // The counter is in the processor.
    assert_eq!(free(&report, "vm"), ["fine-clock"]);
    for row in report["drill"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let stops = stops(&report, name, "vm");
        if name == "fine-clock" {
            continue;
        }
        assert!(stops == ["guest-kernel"] || stops == ["machine"], "{name}: {stops:?}");
    }
    // Root of its own kernel may do this, and the host's goes on.
    assert_eq!(report["runs"]["vm"]["outcomes"]["reboot"], "through");
    assert_eq!(stops(&report, "loopback-port", "vm"), ["machine"]);
}
