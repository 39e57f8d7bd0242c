//! The kernel's command line: what makes a guest of this machine boot fast, then the user's own words,
//! which win where the kernel takes the last of two.

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
    // There is no PCI: do not probe for it.
    "pci=off",
    // KVM keeps the time stamp counters together: no watchdog over them, no test of the timer.
    "tsc=reliable",
    "no_timer_check",
    // The processor's random numbers are the host's: trusted anyway.
    "random.trust_cpu=on",
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

/// The whole line, without the NUL.
///
/// # Errors
/// Too long or not text.
pub fn command_line(extra: &str) -> Result<String, Error> {
    let mut line = DEFAULTS.join(" ");
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

    #[test]
    fn users_words_come_last() {
        assert!(command_line(" mitigations=off ").unwrap().ends_with(" mitigations=off"));
        assert!(!command_line("").unwrap().ends_with(' '));
    }

    #[test]
    fn modules_stay_possible() {
        assert!(!command_line("").unwrap().contains("nomodule"));
    }

    #[test]
    fn the_line_fits_with_its_nul_or_is_refused() {
        let room = COMMAND_LINE_SIZE - 1 - command_line("").unwrap().len() - 1;
        assert_eq!(command_line(&"x".repeat(room)).unwrap().len(), COMMAND_LINE_SIZE - 1);
        assert!(matches!(command_line(&"x".repeat(room + 1)), Err(Error::TooLong(COMMAND_LINE_SIZE))));
    }

    #[test]
    fn control_characters_are_refused() {
        for bad in ["a\0b", "a\nb", "ä"] {
            assert!(matches!(command_line(bad), Err(Error::NotText(_))), "{bad:?}");
        }
    }
}
