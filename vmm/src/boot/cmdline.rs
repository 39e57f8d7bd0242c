//! The kernel's command line: what makes a guest of this machine boot fast, then the user's own words,
//! which win where the kernel takes the last of two.

use crate::device::virtio::TransportKind;
use crate::memory::layout::COMMAND_LINE_SIZE;

/// What every guest is told, with the reason for each.
const DEFAULTS: &[&str] = &[
    // The serial console is the only one; without `quiet` every character costs an exit.
    "console=ttyS0",
    "quiet",
    // A panic ends the machine at once, through the keyboard controller's reset line.
    "panic=-1",
    "reboot=k",
    // One UART exists: do not probe for three more.
    "8250.nr_uarts=1",
    // KVM keeps the time stamp counters together: no watchdog over them, no test of the timer.
    "tsc=reliable",
    "no_timer_check",
    // The processor's random numbers are the host's: trusted anyway.
    "random.trust_cpu=on",
    // The power button of a kernel without input devices is a signal to PID 1: SIGPWR, to hv-init.
    "tiny_power_button.power_signal=30",
    // Self-tests of ciphers take longer than all the rest of a small guest's boot.
    "cryptomgr.notests",
];

/// A command line that cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than the kernel reads.
    #[error(
        "the kernel's command line is {0} bytes long, but kernels read {max} of it; shorten what is added",
        max = COMMAND_LINE_SIZE - 1
    )]
    TooLong(usize),
    /// A byte that would end it, or that no kernel reads as text.
    #[error("the kernel's command line may hold printable ASCII characters only, not {0:?}")]
    NotText(char),
}

/// What a guest is told of the bus that its devices are on.
const fn of_bus(transport: TransportKind) -> &'static str {
    match transport {
        // There is no PCI: do not probe for it.
        TransportKind::Mmio => "pci=off",
        // There is, but not behind ports: do not look for chipsets with defects there before ACPI is up.
        TransportKind::Pci => "pci=noearly",
    }
}

/// The whole line, without the NUL.
///
/// # Errors
/// Too long or not text.
pub fn command_line(transport: TransportKind, extra: &str) -> Result<String, Error> {
    let mut line = DEFAULTS.join(" ");
    line.push(' ');
    line.push_str(of_bus(transport));
    if !extra.trim().is_empty() {
        line.push(' ');
        line.push_str(extra.trim());
    }
    if let Some(bad) = line.chars().find(|c| !c.is_ascii() || c.is_ascii_control()) {
        return Err(Error::NotText(bad));
    }
    if line.len() >= COMMAND_LINE_SIZE { Err(Error::TooLong(line.len())) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(extra: &str) -> Result<String, Error> {
        command_line(TransportKind::Mmio, extra)
    }

    #[test]
    fn pci_is_off_where_there_is_none() {
        assert!(line_of("").unwrap().ends_with(" pci=off"));
        assert!(!command_line(TransportKind::Pci, "").unwrap().contains("pci=off"));
    }

    #[test]
    fn users_words_come_last() {
        assert!(line_of(" mitigations=off ").unwrap().ends_with(" mitigations=off"));
        assert!(!line_of("").unwrap().ends_with(' '));
    }

    #[test]
    fn modules_stay_possible() {
        assert!(!line_of("").unwrap().contains("nomodule"));
    }

    #[test]
    fn the_line_fits_with_its_nul_or_is_refused() {
        let room = COMMAND_LINE_SIZE - 1 - line_of("").unwrap().len() - 1;
        assert_eq!(line_of(&"x".repeat(room)).unwrap().len(), COMMAND_LINE_SIZE - 1);
        assert!(matches!(line_of(&"x".repeat(room + 1)), Err(Error::TooLong(COMMAND_LINE_SIZE))));
    }

    #[test]
    fn control_characters_are_refused() {
        for bad in ["a\0b", "a\nb", "ä"] {
            assert!(matches!(line_of(bad), Err(Error::NotText(_))), "{bad:?}");
        }
    }
}
