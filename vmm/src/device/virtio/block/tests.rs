use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use proptest::prelude::*;

use super::super::testing::{Buffer, Rig, Used, hostile};
use super::*;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// 64 sectors, each full of its number.
fn image() -> File {
    let mut file = tempfile::tempfile().unwrap();
    (0..64u8).for_each(|sector| file.write_all(&[sector; 512]).unwrap());
    file
}

fn block(file: &File, read_only: bool, settings: Settings) -> Box<Block> {
    let disk = Disk::new(file.try_clone().unwrap(), read_only).unwrap();
    Box::new(Block::new(disk, settings).unwrap())
}

fn named(serial: &str) -> Settings {
    Settings { serial: serial.into(), ..Settings::default() }
}

fn rig(read_only: bool) -> (Rig, File) {
    let file = image();
    (Rig::new(block(&file, read_only, named("root"))), file)
}

fn header(kind: u32, sector: u64) -> Buffer {
    Buffer::Out([&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat())
}

fn send(rig: &mut Rig, kind: u32, sector: u64, data: Vec<Buffer>) -> (u8, Used) {
    let mut buffers = vec![header(kind, sector)];
    buffers.extend(data);
    buffers.push(Buffer::In(1));
    let used = rig.request(0, &buffers);
    (*used.bytes.last().unwrap(), used)
}

fn sector(file: &File, number: u64) -> Vec<u8> {
    let mut file = file;
    let mut bytes = vec![0; 512];
    file.seek(SeekFrom::Start(number * 512)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn reads_into_scattered_buffers() {
    let (mut rig, _) = rig(true);
    let (status, used) = send(&mut rig, spec::VIRTIO_BLK_T_IN, 3, vec![Buffer::In(1000), Buffer::In(24)]);
    assert_eq!((status, used.written), (OK, 1025));
    assert_eq!(used.bytes[..512], [3; 512]);
    assert_eq!(used.bytes[512..1024], [4; 512]);
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn writes_and_flushes() {
    let (mut rig, file) = rig(false);
    let data = vec![Buffer::Out(vec![0xaa; 300]), Buffer::Out(vec![0xbb; 212])];
    assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_OUT, 63, data).0, OK);
    assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_FLUSH, 0, vec![]).0, OK);
    assert_eq!(sector(&file, 63)[..300], [0xaa; 300]);
    assert_eq!(sector(&file, 63)[300..], [0xbb; 212]);
    assert_eq!(sector(&file, 62), [62; 512]);
}

#[test]
fn describes_itself() {
    let (rig, _) = rig(true);
    assert_eq!(rig.read(0x08), 2);
    assert_eq!((rig.read(0x100), rig.read(0x104)), (64, 0), "capacity in sectors");
    assert_eq!(rig.read(0x114), 512, "block size");
    rig.write(0x14, 0);
    assert_ne!(rig.read(0x10) & 1 << spec::VIRTIO_BLK_F_RO, 0);
    assert_eq!(rig.read(0x10) & 1 << spec::VIRTIO_BLK_F_DISCARD, 0);
}

#[test]
fn tells_its_serial_number() {
    let (mut rig, _) = rig(true);
    let (status, used) = send(&mut rig, spec::VIRTIO_BLK_T_GET_ID, 0, vec![Buffer::In(20)]);
    assert_eq!((status, used.written), (OK, 21));
    assert_eq!(&used.bytes[..5], b"root\0");
}

#[test]
fn bug_12_writes_to_a_read_only_disk_are_refused_though_not_negotiated() {
    let file = image();
    let without_ro = !(1 << spec::VIRTIO_BLK_F_RO);
    let mut rig = Rig::with_features(block(&file, true, named("root")), without_ro);
    let (status, _) = send(&mut rig, spec::VIRTIO_BLK_T_OUT, 0, vec![Buffer::Out(vec![9; 512])]);
    assert_eq!(status, IOERR);
    let range = [&0u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_DISCARD, 0, vec![Buffer::Out(range)]).0, IOERR);
    assert_eq!(sector(&file, 0), [0; 512]);
    assert_eq!(sector(&file, 1), [1; 512]);
}

#[test]
fn bug_13_sectors_beyond_the_end_and_partial_sectors_are_refused() {
    let (mut rig, file) = rig(false);
    for (at, len) in [(64, 512), (63, 1024), (u64::MAX, 512), (u64::MAX / 512 + 1, 512), (0, 511), (0, 513)] {
        assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_IN, at, vec![Buffer::In(len)]).0, IOERR, "{at} {len}");
        let data = vec![Buffer::Out(vec![0xee; len])];
        assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_OUT, at, data).0, IOERR, "{at} {len}");
    }
    assert_eq!(file.metadata().unwrap().len(), 64 * 512, "the image must not grow");
    assert!(!rig.failed(), "a refused request is not a broken device");
}

#[test]
fn bug_13_discards_are_checked_as_a_whole() {
    let (mut rig, file) = rig(false);
    let range = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let discard = spec::VIRTIO_BLK_T_DISCARD;
    let zero = spec::VIRTIO_BLK_T_WRITE_ZEROES;
    let send = |rig: &mut Rig, kind, data| send(rig, kind, 0, vec![Buffer::Out(data)]).0;
    assert_eq!(send(&mut rig, discard, [range(8, 8, 0), range(64, 1, 0)].concat()), IOERR);
    assert_eq!(send(&mut rig, discard, range(u64::MAX, 8, 0)), IOERR);
    assert_eq!(send(&mut rig, discard, range(0, u32::MAX, 0)), IOERR);
    assert_eq!(send(&mut rig, discard, range(8, 8, 1)), UNSUPP);
    assert_eq!(send(&mut rig, discard, vec![0; 15]), IOERR);
    assert_eq!(send(&mut rig, discard, vec![0; 16 * 17]), IOERR);
    assert_eq!(sector(&file, 8), [8; 512], "nothing was touched");
    assert_eq!(send(&mut rig, zero, range(9, 1, 0)), OK);
    assert_eq!(send(&mut rig, discard, range(16, 8, 0)), OK);
    assert_eq!(
        (sector(&file, 8), sector(&file, 9), sector(&file, 10)),
        (vec![8; 512], vec![0; 512], vec![10; 512])
    );
    assert_eq!((sector(&file, 16), sector(&file, 24)), (vec![0; 512], vec![24; 512]));
    assert_eq!(file.metadata().unwrap().len(), 64 * 512);
}

#[test]
fn bug_11_a_guest_that_writes_a_qcow2_header_gets_it_back_as_bytes() {
    let (mut rig, file) = rig(false);
    let mut bytes = vec![0; 512];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    send(&mut rig, spec::VIRTIO_BLK_T_OUT, 0, vec![Buffer::Out(bytes.clone())]);
    let mut again = Rig::new(block(&file, false, named("root")));
    assert_eq!(again.read(0x100), 64);
    let (_, used) = send_read(&mut again);
    assert_eq!(used.bytes[..512], bytes);
}

fn send_read(rig: &mut Rig) -> (u8, Used) {
    send(rig, spec::VIRTIO_BLK_T_IN, 0, vec![Buffer::In(512)])
}

#[test]
fn malformed_requests_are_answered() {
    let (mut rig, _) = rig(false);
    assert_eq!(send(&mut rig, 77, 0, vec![]).0, UNSUPP);
    let short = rig.request(0, &[Buffer::Out(vec![0; 15]), Buffer::In(1)]);
    assert_eq!(short.bytes, [IOERR]);
    let mute = rig.request(0, &[header(spec::VIRTIO_BLK_T_IN, 0)]);
    assert_eq!(mute.written, 0);
    assert_eq!(send_read(&mut rig).0, OK, "still works");
}

#[test]
fn bug_10_a_shrunken_image_is_an_error_not_a_hang() {
    let (mut rig, file) = rig(false);
    file.set_len(512).unwrap();
    assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_IN, 1, vec![Buffer::In(512)]).0, IOERR);
}

#[test]
fn last_partial_sector_reads_as_zeros_behind_the_end() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 700]).unwrap();
    let mut rig = Rig::new(block(&file, true, named("odd")));
    let (status, used) = send(&mut rig, spec::VIRTIO_BLK_T_IN, 0, vec![Buffer::In(1024)]);
    assert_eq!(status, OK);
    assert_eq!(used.bytes[..700], [7; 700]);
    assert_eq!(used.bytes[700..1024], [0; 324]);
}

#[test]
fn requests_in_a_batch_interrupt_once() {
    let file = image();
    let settings = Settings { engine: Choice::Positioned, ..named("root") };
    let mut rig = Rig::new(block(&file, true, settings));
    for n in 0..40 {
        rig.submit(0, &[header(spec::VIRTIO_BLK_T_IN, n), Buffer::In(512), Buffer::In(1)]);
    }
    rig.kick(0);
    for n in 0..40 {
        assert_eq!(rig.used(0).unwrap().bytes[0], n);
    }
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn many_reads_at_once_come_back_in_any_order_but_whole() {
    let (mut rig, _) = rig(true);
    for round in 0..20 {
        for n in 0..60 {
            rig.submit(0, &[header(spec::VIRTIO_BLK_T_IN, n), Buffer::In(512 * 4), Buffer::In(1)]);
        }
        rig.kick(0);
        let mut seen: Vec<u8> = (0..60)
            .map(|_| {
                let used = rig.answer(0);
                assert_eq!((used.written, used.bytes[4 * 512]), (2049, OK), "round {round}");
                assert_eq!(used.bytes[3 * 512], used.bytes[0] + 3);
                used.bytes[0]
            })
            .collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..60));
    }
}

#[test]
fn both_engines_do_the_same() {
    for (engine, direct) in [(Choice::Ring, false), (Choice::Positioned, false), (Choice::Ring, true)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[3; 64 << 10]).unwrap();
        let disk = match Disk::open(file.path(), false, direct) {
            Err(DiskError::Direct(_)) => {
                println!("skipped: this file system has no direct I/O");
                continue;
            }
            other => other.unwrap(),
        };
        let settings = Settings { engine, ..named("both") };
        let mut rig = Rig::new(Box::new(Block::new(disk, settings).unwrap()));
        // Direct I/O wants memory that is aligned; the rig's buffers come one after the other.
        let data = vec![Buffer::Out(vec![0xaa; 4096]), Buffer::Out(vec![0xbb; 4096])];
        let (status, _) = send(&mut rig, spec::VIRTIO_BLK_T_OUT, 8, data);
        if direct && status == IOERR {
            println!("skipped: the medium wants its memory aligned");
            continue;
        }
        assert_eq!(status, OK, "{engine:?} {direct}");
        assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_FLUSH, 0, vec![]).0, OK);
        let (status, used) = send(&mut rig, spec::VIRTIO_BLK_T_IN, 8, vec![Buffer::In(8192)]);
        assert_eq!((status, used.written), (OK, 8193));
        assert_eq!((used.bytes[0], used.bytes[4096], used.bytes[8191]), (0xaa, 0xbb, 0xbb));
        assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_IN, 128, vec![Buffer::In(512)]).0, IOERR);
    }
}

#[test]
fn several_queues_are_served() {
    let file = image();
    let mut rig = Rig::new(block(&file, false, Settings { queues: 3, ..named("many") }));
    assert_eq!(rig.read(0x122) & 0xffff, 3, "num_queues");
    for queue in 0..3 {
        let buffers = [header(spec::VIRTIO_BLK_T_IN, queue), Buffer::In(512), Buffer::In(1)];
        assert_eq!(rig.request(queue as usize, &buffers).bytes[..512], [queue as u8; 512]);
    }
    assert_eq!(
        Block::new(Disk::new(image(), true).unwrap(), Settings::default()).unwrap().queue_sizes().len(),
        1
    );
}

#[test]
fn the_write_cache_can_be_switched_if_that_was_negotiated() {
    const WRITEBACK: u64 = 0x100 + 32;
    let cache = |rig: &Rig| rig.read(WRITEBACK) & 0xff;
    let (mut rig, file) = rig(false);
    assert_eq!(cache(&rig), 1);
    rig.transport.write(WRITEBACK, &[0]);
    assert_eq!(cache(&rig), 0);
    assert_eq!(send(&mut rig, spec::VIRTIO_BLK_T_OUT, 5, vec![Buffer::Out(vec![1; 512])]).0, OK);
    assert_eq!(sector(&file, 5), [1; 512]);
    rig.transport.write(WRITEBACK, &[0xff]);
    assert_eq!(cache(&rig), 1, "one bit");
    rig.transport.write(WRITEBACK - 1, &[0; 4]);
    assert_eq!(cache(&rig), 0, "as part of a wider write");
    rig.start(!(1 << spec::VIRTIO_BLK_F_CONFIG_WCE));
    assert_eq!(cache(&rig), 1, "a reset switches it on again");
    rig.transport.write(WRITEBACK, &[0]);
    assert_eq!(cache(&rig), 1, "not negotiated");
    assert_eq!(rig.read(0x100), 64, "nothing else can be written");
}

#[test]
fn limits_hold_requests_back_and_let_them_go() {
    let file = image();
    let rate = 20;
    let limits = Limits { operations: std::num::NonZeroU64::new(rate), bytes: None };
    let started = std::time::Instant::now();
    let mut rig = Rig::new(block(&file, true, Settings { limits, ..named("slow") }));
    for n in 0..30 {
        rig.submit(0, &[header(spec::VIRTIO_BLK_T_IN, n), Buffer::In(512), Buffer::In(1)]);
    }
    rig.kick(0);
    for answered in 1..=30 {
        rig.answer(0);
        // A second's burst and what time has brought; this cannot fail on a slow machine.
        assert!(answered as f64 <= rate as f64 * (1.0 + started.elapsed().as_secs_f64()) + 1.0);
    }
    assert!(started.elapsed().as_secs_f64() > 0.4, "30 requests at 20 a second");
}

#[test]
fn bug_10_a_reset_waits_for_io_that_is_under_way() {
    let file = image();
    let settings = || Settings { queues: 2, ..named("reset") };
    let mut rig = Rig::new(block(&file, false, settings()));
    for _ in 0..50 {
        for n in 0..60 {
            rig.submit(0, &[header(spec::VIRTIO_BLK_T_IN, n), Buffer::In(512), Buffer::In(1)]);
            rig.submit(1, &[header(spec::VIRTIO_BLK_T_FLUSH, n), Buffer::In(1)]);
        }
        rig.kick_without_running(0);
        rig.kick_without_running(1);
        rig.step();
        rig.write(0x70, 0);
        let before = rig.checksum();
        rig.run();
        assert_eq!(rig.checksum(), before, "guest memory changed after the reset");
        rig.start(u64::MAX);
    }
    assert_eq!(send_read(&mut rig).0, OK);
}

#[test]
fn a_reset_in_between_loses_nothing_of_the_disk() {
    let (mut rig, _) = rig(true);
    rig.submit(0, &[header(spec::VIRTIO_BLK_T_IN, 1), Buffer::In(512), Buffer::In(1)]);
    rig.start(u64::MAX);
    rig.run();
    assert!(rig.used(0).is_none(), "a request from before the reset must not be answered");
    assert_eq!(send_read(&mut rig).0, OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn survives_any_ring(hostile in hostile(2), read_only: bool, ring: bool, limited: bool) {
        let file = image();
        let operations = std::num::NonZeroU64::new(3).filter(|_| limited);
        let engine = if ring { Choice::Ring } else { Choice::Positioned };
        let limits = Limits { operations, bytes: None };
        let settings = Settings { queues: 2, engine, limits, ..named("any") };
        let mut rig = Rig::new(block(&file, read_only, settings));
        rig.survive(&hostile);
        prop_assert_eq!(file.metadata().unwrap().len(), 64 * 512);
    }
}

/// What a vCPU's own thread is enough for is answered before the event loop runs.
#[test]
fn what_waits_for_nothing_is_done_on_the_spot() {
    let (mut rig, file) = rig(false);
    rig.submit(0, &[header(spec::VIRTIO_BLK_T_OUT, 5), Buffer::Out(vec![0x77; 512]), Buffer::In(1)]);
    rig.submit(0, &[header(spec::VIRTIO_BLK_T_GET_ID, 0), Buffer::In(20), Buffer::In(1)]);
    rig.kick_without_running(0);
    assert_eq!((rig.answer(0).bytes, rig.answer(0).bytes[20]), (vec![OK], OK));
    assert_eq!(sector(&file, 5), [0x77; 512]);
    assert_eq!(rig.interrupts(), 1);
    rig.submit(0, &[header(spec::VIRTIO_BLK_T_FLUSH, 0), Buffer::In(1)]);
    rig.kick_without_running(0);
    assert!(rig.used(0).is_none(), "a flush waits for the medium: it is another thread's");
    rig.run();
    assert_eq!(rig.answer(0).bytes, [OK]);
}

#[test]
fn much_at_once_is_left_to_the_event_loop() {
    let (mut rig, _) = rig(false);
    for _ in 0..40 {
        rig.submit(0, &[header(spec::VIRTIO_BLK_T_OUT, 0), Buffer::Out(vec![1; 8192]), Buffer::In(1)]);
    }
    rig.kick_without_running(0);
    let first = std::iter::from_fn(|| rig.used(0)).count();
    assert!((1..40).contains(&first), "{first}");
    rig.run();
    let rest = std::iter::from_fn(|| rig.used(0)).count();
    assert_eq!(first + rest, 40);
}
