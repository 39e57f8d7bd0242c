//! Disks beside the image: `--disk`.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use hv_common::Kind;

use support::{finish, hv, image, shell, unavailable};

/// A disk image full of this byte.
fn disk(dir: &Path, name: &str, bytes: usize, byte: u8) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![byte; bytes]).unwrap();
    path
}

#[test]
fn a_container_is_told_why_it_has_no_disks() {
    let refused = finish(shell(Kind::Ctr, &["--disk", "x.img"], "true"), b"").expect(125);
    assert!(
        refused.stderr.contains("--disk is only for `hv vm`: a container has files and no disks"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_is_wrong_with_a_disk_is_said_before_anything_starts() {
    for (arg, words) in
        [("x.img,wr", "`wr` is not known"), ("x.img,iops=0", "above 0"), (",ro", "begins with its path")]
    {
        let mut command = hv(&["vm"]);
        command.arg(image::directory()).args(["--disk", arg]);
        let refused = finish(command, b"");
        assert_ne!(refused.status, Some(0));
        assert!(refused.stderr.contains(words), "{arg}: {}", refused.stderr);
    }
}

mod vm {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Two disks in one machine: each as large, named and protected as asked; what is discarded is given back.
    #[test]
    fn disks_are_what_was_asked_for() {
        if let Some(reason) = unavailable(Kind::Vm) {
            println!("skipped: {reason}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = disk(dir.path(), "data.img", 8 * MIB, 0x61);
        let fixed = disk(dir.path(), "fixed.img", MIB, 0x62);
        let before = fs::metadata(&data).unwrap().blocks();
        let script = "set -e
            cd /sys/block
            echo vdb $(cat vdb/size) $(cat vdb/serial) $(cat vdb/ro vdb/queue/write_cache)
            echo vdc $(cat vdc/size) $(cat vdc/serial) $(cat vdc/ro)
            head -c 3 /dev/vdb; echo; head -c 3 /dev/vdc; echo
            printf xyz | dd of=/dev/vdb bs=512 seek=8192 conv=fsync 2>/dev/null
            if printf xyz | dd of=/dev/vdc conv=notrunc 2>/dev/null; then echo vdc was written; fi
            blkdiscard -o 0 -l 4194304 /dev/vdb && echo discarded
            head -c 4096 /dev/vdb | tr -d '\\0' | wc -c
            echo 'write through' > vdb/queue/write_cache; cat vdb/queue/write_cache
            printf abc | dd of=/dev/vdb bs=512 seek=8193 conv=notrunc 2>/dev/null";
        let data_arg = format!("{},serial=DATA-1", data.display());
        let fixed_arg = format!("{},ro,id=fixed,iops=100000,bw=1G", fixed.display());
        let options = ["--disk", data_arg.as_str(), "--disk", fixed_arg.as_str()];
        let done = finish(shell(Kind::Vm, &options, script), b"").expect(0);
        let lines: Vec<_> = done.text().lines().map(str::to_owned).collect();
        let expected = [
            "vdb 16384 DATA-1 0 write back",
            "vdc 2048 fixed 1",
            "aaa",
            "bbb",
            "discarded",
            "0",
            "write through",
        ];
        assert_eq!(lines, expected, "{}", done.stderr);
        let mut written = [0; 3];
        let file = File::open(&data).unwrap();
        file.read_exact_at(&mut written, 8192 * 512).unwrap();
        assert_eq!(&written, b"xyz");
        file.read_exact_at(&mut written, 8193 * 512).unwrap();
        assert_eq!(&written, b"abc");
        let after = fs::metadata(&data).unwrap();
        assert_eq!(after.len(), 8 * MIB as u64);
        assert!(
            after.blocks() <= before - 6 * 1024,
            "{before} blocks before the discard, {} after",
            after.blocks()
        );
        assert!(fs::read(&fixed).unwrap().iter().all(|byte| *byte == 0x62), "a read-only disk was written");
    }

    /// More reads at once than a ring has room for, from two processors, all right.
    #[test]
    fn two_processors_read_one_disk() {
        if let Some(reason) = unavailable(Kind::Vm) {
            println!("skipped: {reason}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.img");
        let bytes: Vec<u8> =
            (0..4 * MIB as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        fs::write(&data, &bytes).unwrap();
        let arg = format!("{},ro", data.display());
        let script = "ls /sys/block/vdb/mq | wc -l
            for part in 0 1 2 3; do dd if=/dev/vdb bs=1M skip=$part count=1 2>/dev/null | md5sum & done; wait
            md5sum < /dev/vdb";
        let done = finish(shell(Kind::Vm, &["--cpus", "2", "--disk", &arg], script), b"").expect(0);
        let text = done.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("2"), "{}", done.stderr);
        let mut command = std::process::Command::new("md5sum");
        command.arg(&data);
        let expected = finish(command, b"").text();
        assert_eq!(text.lines().last().map(|line| &line[..32]), Some(&expected[..32]));
    }
}
