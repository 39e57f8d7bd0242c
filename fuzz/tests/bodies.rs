//! Every target on its seeds and on mutated ones, without libFuzzer: part of every test run. `HV_FUZZ_SECONDS` says how
//! long for each target (1), `HV_FUZZ_SEED` with what its mutations begin.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hv_fuzz::mutate::{Random, mutate};
use hv_fuzz::target::{ALL, Target};

/// At least so many mutated inputs, however slow the machine is.
const LEAST: usize = 200;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

fn directory(of: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of).join(target.name)
}

/// The committed seeds; without the source tree, the same as they are written.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory("corpus", target)) else { return (target.seeds)() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs the body; an input that it cannot take is kept before the test fails.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.body)(input))) {
        let dir = directory("artifacts", target);
        let kept = dir.join(format!("crash-{}", std::process::id()));
        match fs::create_dir_all(&dir).and_then(|()| fs::write(&kept, input)) {
            Ok(()) => {
                println!("the input is kept: cargo xtask fuzz {} --input {}", target.name, kept.display())
            }
            Err(error) => println!("the input ({error}): {input:02x?}"),
        }
        resume_unwind(panic);
    }
}

fn try_target(name: &str) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    if let Some(path) = std::env::var_os("HV_FUZZ_INPUT") {
        return run(target, &fs::read(path).unwrap());
    }
    let corpus = seeds(target);
    run(target, &[]);
    corpus.iter().for_each(|seed| run(target, seed));
    let duration = Duration::from_secs(variable("HV_FUZZ_SECONDS").unwrap_or(1));
    let mut random = Random(variable("HV_FUZZ_SEED").unwrap_or(1));
    let (begun, mut count) = (Instant::now(), 0);
    // A few inputs are kept and changed again, so that changes add up.
    let mut pool = corpus.clone();
    while count < LEAST || begun.elapsed() < duration {
        let mut input = pool[random.below(pool.len())].clone();
        mutate(&mut input, &corpus[random.below(corpus.len())], &mut random);
        run(target, &input);
        if random.below(16) == 0 {
            let place = random.below(64 + corpus.len());
            match pool.get_mut(place) {
                Some(old) if place >= corpus.len() => *old = input,
                Some(_) => {}
                None => pool.push(input),
            }
        }
        count += 1;
    }
    println!("{name}: {count} mutated inputs in {:?}", begun.elapsed());
}

macro_rules! bodies {
    ($($name:ident)+) => {
        $(#[test] fn $name() { try_target(stringify!($name)) })+

        #[test]
        fn every_target_is_here_and_has_its_program_and_its_seeds() {
            let here = [$(stringify!($name)),+];
            assert_eq!(ALL.map(|target| target.name), here);
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            if !root.exists() {
                return println!("skipped: the source tree is not here");
            }
            for name in here {
                let program = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
                assert!(program.contains(&format!("\"{name}\"")), "{name}");
                assert!(fs::read_dir(root.join("corpus").join(name)).unwrap().count() > 0, "{name}");
            }
        }
    };
}

bodies! {
    arguments balloon block bzimage console control cpu_template elf initramfs layers mmio_registers net pci_registers rng
    serial vsock wire
}

#[test]
#[ignore = "writes corpus/"]
fn write_seeds() {
    for target in ALL {
        let dir = directory("corpus", &target);
        fs::create_dir_all(&dir).unwrap();
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
