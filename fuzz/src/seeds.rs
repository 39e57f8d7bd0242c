//! Where inputs begin: small ones that get far. They are committed in `corpus/`, as cargo-fuzz looks for them;
//! `cargo test -p hv-fuzz -- --ignored` writes them there.

use hv_common::Exit;
use hv_common::wire::{FromGuest, write_frame};

/// A request (see [`crate::rig`]): queue, shape, header, then for each descriptor what it is and how long.
fn request(queue: u8, header: &[u8], descriptors: &[(u8, u16)]) -> Vec<u8> {
    let mut bytes = vec![4, queue, ((descriptors.len() - 1) << 3) as u8, 1, header.len() as u8];
    bytes.extend_from_slice(header);
    for (what, len) in descriptors {
        bytes.push(*what);
        bytes.extend_from_slice(&len.to_le_bytes());
    }
    bytes
}

/// What the host's side does with these bytes.
fn beside(bytes: &[u8]) -> Vec<u8> {
    [&[10, bytes.len() as u8], bytes].concat()
}

/// A start of the driver with these features.
fn start(mask: u64) -> Vec<u8> {
    [&[3][..], &mask.to_le_bytes()].concat()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Any device: both transports, requests to its first queues.
pub fn device() -> Vec<Vec<u8>> {
    let pages = words(&[0x110_0000_0101, 0x1_0000_0102]);
    let requests =
        [request(0, &[], &[(3, 64)]), request(0, &pages, &[(2, 16)]), request(1, &pages, &[(2, 16)])]
            .concat();
    [[&[0][..], &requests, &start(0), &requests].concat(), [&[1][..], &requests, &beside(&[0; 8])].concat()]
        .into()
}

/// A disk: read, write, flush, identity, discard, write zeroes.
pub fn block() -> Vec<Vec<u8>> {
    let header = |kind: u64, sector: u64| words(&[kind, sector]);
    let data = |kind: u64, write: u8| request(0, &header(kind, 1), &[(2, 16), (4 | write, 512), (7, 1)]);
    let all = [data(0, 1), data(1, 0), data(4, 1), data(8, 1), data(11, 0), data(13, 0)].concat();
    let short = [&[0][..], &all, &beside(&[1, 0]), &all].concat();
    (0..8).map(|kind| [&[kind][..], &short].concat()).collect()
}

/// A network device: frames out, room for frames in, a command.
pub fn net() -> Vec<Vec<u8>> {
    let frame = [0; 72];
    let out = request(1, &frame, &[(2, 72)]);
    let room = request(0, &[], &[(3, 1600)]);
    let command = request(4, &[4, 0, 2, 0], &[(2, 2), (4, 2), (7, 1)]);
    let all = [out.clone(), room, beside(&frame), out, command].concat();
    (0..3).flat_map(|pairs| [[&[pairs, 0][..], &all].concat(), [&[pairs, 1][..], &all].concat()]).collect()
}

/// The console: control messages, output, input.
pub fn console() -> Vec<Vec<u8>> {
    let message = |event: u64, value: u64| request(3, &words(&[event << 32 | value << 48]), &[(2, 8)]);
    let ready = [message(0, 1), message(3, 1), message(6, 1), request(2, &[], &[(3, 64)])].concat();
    let talk = [request(1, b"hello", &[(2, 5)]), request(0, &[], &[(3, 64)]), beside(b"typed")].concat();
    [[&[0][..], &ready, &talk].concat(), [&[1][..], &ready, &talk].concat()].into()
}

/// Sockets: a connection from the guest, one from the host, data, credit, shutdown.
pub fn vsock() -> Vec<Vec<u8>> {
    let packet = |op: u64, len: u64, payload: &[u8]| {
        let header = words(&[3, 2, 1000 | 1024 << 32, len | 1 << 32 | op << 48, 0x4_0000 << 32, 0]);
        let bytes = [&header[..44], payload].concat();
        request(1, &bytes, &[(2, bytes.len() as u16)])
    };
    let room = request(0, &[], &[(3, 44), (3, 4096)]);
    let from_guest = [
        room.clone(),
        packet(1, 0, b""),
        beside(b"x"),
        packet(5, 5, b"hello"),
        packet(6, 0, b""),
        packet(4, 0, b""),
    ];
    let from_host = [room.clone(), beside(b"\0CONNECT 52\n"), room, packet(2, 0, b""), packet(3, 0, b"")];
    [[&[0][..], &from_guest.concat()].concat(), [&[1][..], &from_host.concat()].concat()].into()
}

/// Registers: a status handshake by single writes, reads, a configuration space.
pub fn registers() -> Vec<Vec<u8>> {
    let write = |at: u8, value: u8| vec![0, 2, at, 0, value, 0, 0, 0, 0, 0, 0, 0];
    let by_hand =
        [write(0x70, 1), write(0x70, 3), write(0x30, 0), write(0x38, 8), write(0x44, 1), write(0x70, 15)];
    let read = [2, 2, 0x00, 1];
    (0..3)
        .flat_map(|device| {
            let honest =
                [&[device][..], &start(u64::MAX), &read, &[7, 0], &[11, 2, 0xff, 0xff, 0xff, 0xff, 0x10]];
            [[&[device][..], &by_hand.concat()].concat(), honest.concat()]
        })
        .collect()
}

/// Kernel files: an ELF with a segment, as small as it can be.
pub fn elf() -> Vec<Vec<u8>> {
    let mut elf = vec![0; 0x80];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(24, &(16u64 << 20).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(88, &(16u64 << 20).to_le_bytes());
    put(96, &0x80u64.to_le_bytes());
    put(104, &0x2000u64.to_le_bytes());
    vec![elf]
}

/// Kernel files as users have them: the ELF, and bzImages whose payloads begin as each compression does.
pub fn bzimage() -> Vec<Vec<u8>> {
    let packed = |payload: &[u8]| {
        let mut image = vec![0; 5 * 512];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[4]);
        put(0x1fe, b"\x55\xaa");
        put(0x202, b"HdrS");
        put(0x206, &0x20fu16.to_le_bytes());
        put(0x20e, &0x300u16.to_le_bytes());
        put(0x236, &1u16.to_le_bytes());
        put(0x24c, &(payload.len() as u32).to_le_bytes());
        put(0x260, &(64u32 << 20).to_le_bytes());
        put(0x500, b"6.1.0 (a@b) #1 SMP\0");
        [&image, payload].concat()
    };
    // An LZ4 frame of the old format, as kernels have it, of one literal run, and its length behind it.
    let literals = [&[0xf0, 113][..], &elf().concat()].concat();
    let lz4 = [
        &0x184c_2102u32.to_le_bytes()[..],
        &(literals.len() as u32).to_le_bytes(),
        &literals,
        &0x80u32.to_le_bytes(),
    ];
    let begins: [&[u8]; 5] = [
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        b"\xfd7zXZ\0\0\x01",
        b"\x28\xb5\x2f\xfd\x04\0",
        b"BZh91AY&SY",
        &lz4.concat(),
    ];
    begins.map(packed).into_iter().chain(elf()).collect()
}

/// CPU templates.
pub fn cpu_template() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"base":"host"}"#,
        r#"{"base":"portable","cpuid":[{"leaf":"0x1","subleaf":"0x0","register":"ecx","clear":"0x1","set":"0b10"}]}"#,
        r#"{"msrs":[{"index":"0x1a0","value":"0x1"}]}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Blocks of text, each behind its length.
pub fn text() -> Vec<Vec<u8>> {
    let words: [&[u8]; 8] = [b"sh", b"-c", b"A=b", b"/", b"0:0", b"host", b"module", b"\x02"];
    let blocks: Vec<u8> = words.iter().flat_map(|word| [&[word.len() as u8][..], word].concat()).collect();
    vec![blocks.clone(), [&blocks[..], b"\x04abcd\x02ef\x04init070701rest"].concat()]
}

/// What is typed: the number of an option, and its value.
pub fn arguments() -> Vec<Vec<u8>> {
    let values = [
        (0, "disk,,img,ro,serial=S,id=i,direct,iops=10,bw=1M"),
        (1, "tap=tap0,mac=02:00:00:00:00:01,mtu=1500,queues=2"),
        (2, "64M"),
        (3, "portable"),
        (4, "0-1,3"),
        (5, "2M"),
        (6, "name=/tmp/x"),
        (7, "1.5"),
        (8, "256M"),
        (9, "A=b"),
        (10, "0:0"),
        (11, "box"),
        (12, "box.test"),
        (13, "5"),
    ];
    values.map(|(option, value)| [&[option, value.len() as u8][..], value.as_bytes()].concat()).into()
}

/// Requests at the control socket.
pub fn control() -> Vec<Vec<u8>> {
    let texts = [
        "GET /v1/state HTTP/1.1\r\nHost: hv\r\n\r\n",
        "PUT /v1/stop HTTP/1.1\r\nContent-Length: 16\r\n\r\n{\"grace\":\"100\"} ",
        "PUT /v1/balloon HTTP/1.1\r\nContent-Length: 19\r\n\r\n{\"target\":67108864}",
        "GET /v1/metrics HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Frames of the guest's init.
pub fn wire() -> Vec<Vec<u8>> {
    let messages = [
        FromGuest::Started,
        FromGuest::Failed { what: "execute /bin/x".into(), errno: 2, status: 127 },
        FromGuest::Exited(Exit::from_wait_status(3 << 8, false)),
    ];
    let mut all = Vec::new();
    for message in messages {
        // Memory takes all of it.
        let _ = write_frame(&mut all, &message);
    }
    vec![all]
}

/// An entry of a tar.
fn entry(kind: u8, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000755");
    put(108, b"0000001");
    put(116, b"0000002");
    put(124, format!("{:011o}", data.len()).as_bytes());
    put(136, b"13727410000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(data);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

/// Layers: everything that an entry can be, alone and over another layer.
pub fn layers() -> Vec<Vec<u8>> {
    let all = [
        entry(b'5', "d/", "", b""),
        entry(b'0', "d/x", "", b"text"),
        entry(b'0', "d/big", "", &[b'x'; 5000]),
        entry(b'1', "d/same", "d/x", b""),
        entry(b'2', "l", "d", b""),
        entry(b'x', "pax", "", b"19 path=l/through!\n25 SCHILY.xattr.user.a=b\n"),
        entry(b'0', "short", "", b"through a link"),
        entry(b'x', "pax", "", b"25 GNU.sparse.size=20000\n25 GNU.sparse.map=9000,4\n"),
        entry(b'0', "sparse", "", b"data"),
        entry(b'3', "c", "", b""),
        entry(b'6', "fifo", "", b""),
    ]
    .concat();
    let upper = [
        entry(b'0', ".wh.l", "", b""),
        entry(b'0', "d/.wh..wh..opq", "", b""),
        entry(b'0', "d/new", "", b"new"),
        entry(b'1', "hard", "c", b""),
    ]
    .concat();
    let over = [&[1, (all.len() / 512) as u8][..], &all, &upper].concat();
    vec![[&[0][..], &all].concat(), over]
}
