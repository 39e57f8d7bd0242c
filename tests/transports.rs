//! The same run on both transports, with a tuned kernel and with a stock one, on one processor and on
//! several: one boot each, of a body that touches every device.

mod support;

use std::path::PathBuf;
use std::process::Command;

use hv_common::Kind;

use support::{finish, hv, image, sandbox};

/// Streams in both directions, user, processors, writes that go nowhere, exit status; and the bus itself.
const BODY: &str = "\
read -r line; echo \"got $line\"; tail -c 1000000 | wc -c; echo aside >&2
id -u; nproc; echo changed > /tmp/new && cat /etc/data
set -- /sys/bus/pci/drivers/virtio-pci/0000:*; [ -e \"$1\" ] && echo \"pci $#\" || echo no pci
grep -c PCI-MSI /proc/interrupts
exit 7";

/// `hv vm` of an image that must not change, on this transport.
fn vm(kernel: &str, options: &[&str], words: &[&str]) -> Command {
    let image = image::any_raw().unwrap_or_else(image::directory);
    if kernel == "tuned" {
        return sandbox(Kind::Vm, &image, options, words);
    }
    let path =
        |name| std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set"));
    let mut command = hv(&["vm", "--kernel"]);
    command.arg(path("HV_TEST_DEBIAN_KERNEL")).arg("--modules").arg(path("HV_TEST_MODULES"));
    command.args(options).arg(image).arg("--").args(words);
    command
}

/// One boot of the body.
fn run(transport: &str, kernel: &str, cpus: &str) {
    if let Some(reason) = support::unavailable(Kind::Vm) {
        return println!("skipped: {reason}");
    }
    let what = format!("{transport}, {kernel}, {cpus} vCPU(s)");
    let image = image::any_raw().unwrap_or_else(image::directory);
    let before = image::digest(&image);
    let options = ["--transport", transport, "--cpus", cpus, "--user", "user"];
    let mut input = b"a line\n".to_vec();
    input.resize(input.len() + 1_000_000, b'x');
    let done = finish(vm(kernel, &options, &["sh", "-c", BODY]), &input).expect(7);
    let text = done.text();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines[..5],
        ["got a line", "1000000", "1000", cpus, "from the image"],
        "{what}: {}",
        done.stderr
    );
    match transport {
        "mmio" => assert_eq!(lines[5..], ["no pci", "0"], "{what}"),
        _ => {
            assert_eq!(lines[5], "pci 3", "{what}: disk, streams, random numbers");
            let vectors: u32 = lines[6].parse().unwrap();
            assert!(vectors >= 6, "{what}: {vectors} vectors: one a queue and one a device, not shared");
        }
    }
    assert!(done.stderr.contains("aside"), "{what}: {}", done.stderr);
    assert_eq!(image::digest(&image), before, "{what}: the image was changed");
}

mod vm {
    use super::run;

    #[test]
    fn mmio_and_pci_with_a_tuned_kernel() {
        // On mmio with one processor: all of parity.rs.
        for (transport, cpus) in [("mmio", "4"), ("pci", "1"), ("pci", "4")] {
            run(transport, "tuned", cpus);
        }
    }

    #[test]
    fn mmio_and_pci_with_debians_kernel() {
        // The other two and all of parity.rs on each: `cargo xtask test --all-combinations`.
        for (transport, cpus) in [("mmio", "4"), ("pci", "1")] {
            run(transport, "debian", cpus);
        }
    }
}
