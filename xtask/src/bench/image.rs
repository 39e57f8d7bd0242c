//! From an OCI layout to a file that can be started: hv, against unpacking by umoci and packing by mkfs.erofs. On
//! this machine itself, since it is files and decompression alone.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::figures::{median, on_path};
use super::table::{markdown, ms, ratio};
use crate::{apt, cache, progress, workspace};

/// Files of the image, and bytes of all of them together.
const FILES: u64 = 20_000;
const BYTES: u64 = 1 << 30;
/// Layers that the files are spread over.
const LAYERS: usize = 4;
/// What the aim says: hv's share of what the two programs need.
const AIM: f64 = 0.5;

/// Makes the image once, measures, and prints the table.
///
/// # Errors
/// A program is missing and cannot be installed, or one of them fails.
pub fn run(runs: u32) -> Result<()> {
    apt::install(&["umoci", "erofs-utils", "tar"])?;
    let log = workspace::log("bench-image")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--package", "hv-image", "--example", "startable"]);
    progress::run("building the example startable", cargo.current_dir(workspace::root()), &log)?;
    let startable = workspace::bin_dir("release").join("examples/startable");
    let made = cache::entry("bench-image", &format!("{FILES}-{BYTES}-{LAYERS}-1"), |dir| make(dir, &log))?;
    let scratch = cache::root()?.join("bench/image");
    let mut figures: [Vec<u64>; 5] = Default::default();
    let mut sizes = (0, 0);
    // In turns, so that a slow moment of this machine hits all; the first of each is dropped.
    for run in 0..=runs {
        let step = progress::Step::start(format!("run {run} of {runs}"));
        let taken =
            [one_of_theirs(&made, &scratch, &log)?, one_of_ours(&startable, &made, &scratch)?].concat();
        for (at, us) in taken.into_iter().enumerate().filter(|_| run > 0) {
            figures[at].push(us);
        }
        sizes = (size(&scratch.join("theirs.erofs"))?, size(&scratch.join("ours.erofs"))?);
        step.done();
    }
    let peer = podman(&made, &scratch)?;
    cache::remove_tree(&scratch)?;
    let [unpack, pack, whole, first, second] = figures.map(|all| median(all).unwrap_or_default());
    print(unpack, pack, whole, first, second, sizes, peer);
    Ok(())
}

fn print(unpack: u64, pack: u64, whole: u64, first: u64, second: u64, sizes: (u64, u64), peer: Option<u64>) {
    let theirs = unpack + pack;
    let row = |name: &str, us: u64, size: Option<u64>| {
        let size = size.map_or("-".into(), |size| (size >> 20).to_string());
        vec![name.to_owned(), ms(us), ratio(us, theirs), size]
    };
    let absent = || ["podman load", "absent", "-", "-"].map(str::to_owned).to_vec();
    let rows = [
        row("umoci unpack", unpack, None),
        row("mkfs.erofs", pack, Some(sizes.0)),
        row("both", theirs, None),
        row("hv, the whole process", whole, Some(sizes.1)),
        row("hv, of that making the file", first, None),
        row("hv, opening it again", second, None),
        peer.map_or_else(absent, |us| row("podman load", us, None)),
    ];
    println!("{FILES} files, {} MiB, {LAYERS} layers packed with gzip:\n", BYTES >> 20);
    print!("{}", markdown(&["", "ms, median", "share of both", "MiB"], &rows));
    let share = whole as f64 / theirs.max(1) as f64;
    println!("\naim: a share of at most {AIM}: {}", if share <= AIM { "met" } else { "missed" });
}

/// Microseconds of umoci and of mkfs.erofs.
fn one_of_theirs(layout: &Path, scratch: &Path, log: &Path) -> Result<Vec<u64>> {
    cache::remove_tree(scratch)?;
    fs::create_dir_all(scratch).with_context(|| format!("create {}", scratch.display()))?;
    let bundle = scratch.join("bundle");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:bench", layout.join("image").display())).arg(&bundle);
    if !apt::is_root()? {
        umoci.arg("--rootless");
    }
    let unpack = timed(&mut umoci, log)?;
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.arg("--quiet").arg(scratch.join("theirs.erofs")).arg(bundle.join("rootfs"));
    let pack = timed(&mut mkfs, log)?;
    cache::remove_tree(&bundle)?;
    Ok(vec![unpack, pack])
}

/// Microseconds of the whole process, of making the file, and of opening it again.
fn one_of_ours(program: &Path, layout: &Path, scratch: &Path) -> Result<Vec<u64>> {
    let layout = layout.join("image");
    cache::remove_tree(&layout.join(".startable"))?;
    let begun = Instant::now();
    let output = Command::new(program).arg(&layout).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {}", program.display()))?;
    let whole = begun.elapsed().as_micros() as u64;
    ensure!(output.status.success(), "{}: {}", program.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.trim().split('\t').collect();
    let [path, first, second] = words[..] else { anyhow::bail!("startable printed `{text}`") };
    let ours = scratch.join("ours.erofs");
    fs::rename(path, &ours).with_context(|| format!("rename {path} to {}", ours.display()))?;
    Ok(vec![whole, first.parse()?, second.parse()?])
}

/// Microseconds of `podman load` of the same image as an archive, into a store of its own; None without podman, or
/// where it cannot run.
fn podman(layout: &Path, scratch: &Path) -> Result<Option<u64>> {
    let Some(podman) = on_path("podman") else { return Ok(None) };
    let archive = scratch.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(layout.join("image")).args([
        "oci-layout",
        "index.json",
        "blobs",
    ]);
    ensure!(tar.status().context("run tar")?.success(), "tar failed");
    let mut load = Command::new(podman);
    load.arg("--root").arg(scratch.join("podman")).arg("--runroot").arg(scratch.join("podman-run"));
    load.args(["load", "--quiet", "--input"]).arg(&archive);
    let begun = Instant::now();
    let done = load.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(done.is_ok_and(|status| status.success()).then(|| begun.elapsed().as_micros() as u64))
}

fn timed(command: &mut Command, log: &Path) -> Result<u64> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = File::options().create(true).append(true).open(log).context("open the log")?;
    let error = out.try_clone().context("duplicate the log's descriptor")?;
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(out).stderr(error).status();
    let status = status.with_context(|| format!("run {program}"))?;
    ensure!(status.success(), "{program}: {status}; see {}", log.display());
    Ok(begun.elapsed().as_micros() as u64)
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.len())
}

/// Makes the image: files of every size from a byte to some megabytes, half words and half noise, as programs and
/// their data are; the same bytes on every machine.
fn make(dir: &Path, log: &Path) -> Result<()> {
    let image = dir.join("image");
    let umoci = |words: &[&str]| -> Result<()> {
        let mut command = Command::new("umoci");
        progress::run("making the image", command.args(words).current_dir(dir), log)
    };
    umoci(&["init", "--layout", "image"])?;
    umoci(&["new", "--image", "image:bench"])?;
    let mut random = Random(1);
    for layer in 0..LAYERS {
        let (tree, tar) = (dir.join("tree"), dir.join("layer.tar"));
        fill(&tree, &mut random, layer)?;
        let mut pack = Command::new("tar");
        pack.args(["--sort=name", "--owner=0", "--group=0", "--mtime=@1600000000", "-cf"]);
        progress::run("packing a layer", pack.arg(&tar).arg("-C").arg(&tree).arg("."), log)?;
        umoci(&["raw", "add-layer", "--image", "image:bench", "layer.tar"])?;
        cache::remove_tree(&tree)?;
        fs::remove_file(&tar).with_context(|| format!("remove {}", tar.display()))?;
    }
    ensure!(image.join("index.json").exists(), "umoci made no image");
    Ok(())
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn fill(tree: &Path, random: &mut Random, layer: usize) -> Result<()> {
    let words: Vec<String> =
        (0..4096).map(|_| format!("{:x} ", random.next() >> (random.next() % 48))).collect();
    let (files, bytes) = (FILES / LAYERS as u64, BYTES / LAYERS as u64);
    // Sizes whose logarithm is spread evenly, from 64 bytes on, brought to the sum.
    let weights: Vec<u64> = (0..files).map(|_| 64 << (random.next() % 14)).collect();
    let sum: u64 = weights.iter().sum();
    for (at, weight) in weights.into_iter().enumerate() {
        let dir: PathBuf = tree.join(format!("layer{layer}/d{}/e{}", at % 20, at / 20 % 20));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join(format!("file{at}"));
        let mut data = Vec::new();
        let size = (u128::from(weight) * u128::from(bytes) / u128::from(sum)) as usize;
        while data.len() < size {
            let noise = random.next().is_multiple_of(2);
            let end = (data.len() + 4096).min(size);
            while data.len() < end {
                let next = random.next();
                match noise {
                    true => data.extend_from_slice(&next.to_le_bytes()),
                    false => data.extend_from_slice(words[next as usize % words.len()].as_bytes()),
                }
            }
        }
        data.truncate(size);
        let written = File::create(&path).and_then(|mut file| file.write_all(&data));
        written.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
