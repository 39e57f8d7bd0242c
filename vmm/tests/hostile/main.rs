//! A guest that does what it can against its monitor: random values in every register, ring and port of every
//! device, on both transports, round after round. The monitor is this process: it must not panic, hang,
//! grow or spin, and it answers and ends the machine whenever it is told to.
//!
//! A round is one machine and one seed. `HV_HOSTILE_SECONDS` says how long (6), `HV_HOSTILE_SEED` with what the
//! first round begins; a failure prints the seed of its round. `cargo xtask hostile` is the long form.

#[path = "../guest/mod.rs"]
mod guest;
mod machine;
mod random;
mod script;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use guest::{Run, start_with};
use hv_vmm::device::virtio::TransportKind;
use machine::Devices;
use random::Random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use watch::{Figures, Panics};

/// What a guest does in a round.
const ACTS: usize = 3000;
/// How long a round may take, on an emulated processor too.
const ROUND: Duration = Duration::from_secs(120);
/// How long the monitor may be busy with what a guest has left behind.
const REST: Duration = Duration::from_secs(10);
/// What the monitor may keep of a machine that is gone, in KiB: allocators keep some.
const KEPT: u64 = 24 << 10;
/// What it may use beside the guest's 64 MiB while the machine runs, in KiB.
const BESIDE: u64 = (64 + 32) << 10;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

#[test]
fn bug_09_a_hostile_guest_neither_crashes_nor_hangs_nor_grows_nor_spins_the_monitor() {
    kvm_or_skip!();
    let duration = Duration::from_secs(variable("HV_HOSTILE_SECONDS").unwrap_or(6));
    let begun = Instant::now();
    let arbitrary = || u64::from(std::process::id()) << 20 ^ begun_at();
    let first = variable("HV_HOSTILE_SEED").unwrap_or_else(arbitrary);
    println!("HV_HOSTILE_SEED={first}");
    let panics = Panics::watch();
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    let (mut rounds, mut finished, mut most) = (0, 0, 0);
    let mut early: Option<Figures> = None;
    while begun.elapsed() < duration || rounds < 2 {
        let seed = first.wrapping_add(rounds);
        let done = round(seed);
        assert_eq!(panics.count(), 0, "a thread of the monitor panicked in round HV_HOSTILE_SEED={seed}");
        let now = Figures::now();
        // The first rounds fill what is kept for good.
        let before = *early.get_or_insert(now);
        if rounds < 4 {
            early = Some(now);
        }
        assert_eq!(now.descriptors, before.descriptors, "HV_HOSTILE_SEED={seed}: descriptors are left");
        assert_eq!(now.threads, before.threads, "HV_HOSTILE_SEED={seed}: threads are left");
        assert!(now.memory < before.memory + KEPT, "HV_HOSTILE_SEED={seed}: grew from {before:?} to {now:?}");
        assert!(done.most < before.memory + BESIDE, "HV_HOSTILE_SEED={seed}: {} KiB in a round", done.most);
        *ends.entry(done.end).or_default() += 1;
        done.served.into_iter().for_each(|(device, count)| *served.entry(device).or_default() += count);
        finished += u32::from(done.finished);
        most = most.max(done.most);
        rounds += 1;
    }
    let now = Figures::now();
    println!("{rounds} rounds in {:?}, {finished} to the script's end; ends: {ends:?}", begun.elapsed());
    println!(
        "memory: {:?} KiB after the first rounds, {} KiB now, {most} KiB at most",
        early.map(|e| e.memory),
        now.memory
    );
    println!("requests served: {served:?}");
    assert!(served.values().all(|count| *count > 0), "a device was never reached");
    assert!(finished * 4 >= rounds as u32, "most scripts ended early: they try nothing");
}

fn begun_at() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 >> 10
}

/// How a round went.
struct Done {
    end: String,
    /// The guest came to the end of its script.
    finished: bool,
    /// The most memory that was seen, in KiB.
    most: u64,
    /// By device, how many chains it has handed back.
    served: BTreeMap<String, u64>,
}

fn round(seed: u64) -> Done {
    let mut random = Random(seed);
    let transport = random.of(&[TransportKind::Mmio, TransportKind::Pci]);
    let dir = tempfile::tempdir().unwrap();
    let mut devices = Devices::new(dir.path());
    let known = devices.known();
    let code = script::write(&mut random, transport, &known, ACTS);
    let mut run = start_with(code.code(), 1, transport, std::mem::take(&mut devices.virtio));
    let most = accompany(&run, &devices, &mut random, seed);
    let end = run.guest.ending().get().expect("it has ended").to_string();
    assert!(
        watch::comes_to_rest(REST),
        "HV_HOSTILE_SEED={seed}: the monitor spins after the guest's end ({end})"
    );
    let served = run
        .guest
        .activity()
        .into_iter()
        .map(|(name, counts)| (name, counts.get("requests").copied().unwrap_or(0)));
    let served = served.collect();
    run.guest.stop();
    let told = run.console.bytes();
    let finished = String::from_utf8_lossy(&told).contains(script::FINISHED);
    assert!(told.len() <= 16 << 10);
    drop(run);
    drop(devices);
    Done { end: end.chars().filter(|c| !c.is_ascii_digit()).take(60).collect(), finished, most, served }
}

/// Does, until the guest ends, what a user does with a machine: all of it is answered.
fn accompany(run: &Run, devices: &Devices, random: &mut Random, seed: u64) -> u64 {
    let (begun, mut most) = (Instant::now(), 0);
    loop {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(random.below(20)) * 1_000_000 };
        let mut fds = [PollFd::from_borrowed_fd(run.guest.ending().event(), PollFlags::IN)];
        poll(&mut fds, Some(&limit)).unwrap();
        if run.guest.ending().get().is_some() {
            return most;
        }
        assert!(begun.elapsed() < ROUND, "HV_HOSTILE_SEED={seed}: the guest does not come on");
        most = most.max(Figures::now().memory);
        match random.below(6) {
            0 | 1 => match run.guest.pause() {
                Ok(()) => run.guest.resume(),
                Err(error) => assert!(run.guest.ending().get().is_some(), "HV_HOSTILE_SEED={seed}: {error}"),
            },
            2 => devices.balloon.set_target(u64::from(random.below(64 << 20))),
            3 => run.guest.press_power_button(),
            4 => assert!(!run.guest.activity().is_empty()),
            _ => _ = run.guest.crossings(),
        }
    }
}
