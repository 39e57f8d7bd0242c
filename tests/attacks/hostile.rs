//! A hostile image, and the ways by which it gets to run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::support::{self, Finished, finish, image};

/// Any user who is not root and owns nothing.
pub const USER: &str = "65534";

/// What an attacker gets by default from engines: docker's 14 capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Which command makes the attacker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `hv ctr`.
    Ctr,
    /// `hv oci run`.
    Run,
    /// `hv oci exec`, in a container that runs.
    Exec,
}

/// A way in: the command, and who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The command.
    pub door: Door,
    /// Called by root; else by [`USER`].
    pub rooted: bool,
}

/// An image, and a directory of the host's that it is after.
pub struct Hostile {
    dir: tempfile::TempDir,
    image: PathBuf,
    own: bool,
    change: Box<dyn Fn(&mut Value)>,
    options: Vec<String>,
    doors: Vec<Door>,
}

impl Hostile {
    /// The tests' image, which stays as it is.
    pub fn new() -> Hostile {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let hostile = Hostile {
            dir,
            image: image::directory(),
            own: false,
            change: Box::new(|_| {}),
            options: Vec::new(),
            doors: vec![Door::Ctr, Door::Run, Door::Exec],
        };
        fs::create_dir(hostile.outside()).unwrap();
        fs::set_permissions(hostile.outside(), Permissions::from_mode(0o777)).unwrap();
        fs::write(hostile.victim(), "of the host\n").unwrap();
        fs::set_permissions(hostile.victim(), Permissions::from_mode(0o666)).unwrap();
        hostile
    }

    /// A copy of it, arranged: the function gets its directory, and that of [`Hostile::outside`].
    pub fn arranged(arrange: impl FnOnce(&Path, &Path)) -> Hostile {
        let mut hostile = Hostile::new();
        let copy = hostile.dir.path().join("image");
        let copied = Command::new("cp").arg("-a").arg(&hostile.image).arg(&copy).status().unwrap();
        assert!(copied.success());
        arrange(&copy, &hostile.outside());
        (hostile.image, hostile.own) = (copy, true);
        hostile
    }

    /// What `config.json` says otherwise.
    pub fn config(mut self, change: impl Fn(&mut Value) + 'static) -> Hostile {
        self.change = Box::new(change);
        self
    }

    /// Options of `hv ctr`.
    pub fn options(mut self, options: &[&str]) -> Hostile {
        self.options = options.iter().map(ToString::to_string).collect();
        self
    }

    /// Only by these commands.
    pub fn doors(mut self, doors: &[Door]) -> Hostile {
        self.doors = doors.to_vec();
        self
    }

    /// The image's directory.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A directory of the host that everybody may write to, and nobody from inside.
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// A file in it that everybody may write to.
    pub fn victim(&self) -> PathBuf {
        self.outside().join("victim")
    }

    /// Nothing was made or changed there.
    #[track_caller]
    pub fn outside_is_untouched(&self, way: Way) {
        let names: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(names, ["victim"], "{way:?}");
        assert_eq!(fs::read_to_string(self.victim()).unwrap(), "of the host\n", "{way:?}");
    }

    /// The ways that can be gone here.
    pub fn ways(&self) -> Vec<Way> {
        let root = rustix::process::geteuid().is_root();
        let rooted = [true, false].into_iter().filter(|rooted| root || !rooted);
        let all = rooted.flat_map(|rooted| self.doors.iter().map(move |door| Way { door: *door, rooted }));
        // Where everything takes a hundred times as long, a user comes in by one door.
        all.filter(|way| way.rooted || !emulated() || way.door == self.doors[0]).collect()
    }

    /// Runs the script by every way, and checks what came of it.
    #[track_caller]
    pub fn each_way(&self, script: &str, check: impl Fn(Way, &Finished)) {
        for way in self.ways() {
            let done = self.run(way, script);
            check(way, &done);
            self.outside_is_untouched(way);
        }
    }

    /// As [`Hostile::each_way`]; the script prints these words and nothing else.
    #[track_caller]
    pub fn each_way_prints(&self, script: &str, words: &str) {
        self.each_way(script, |way, done| {
            assert_eq!(done.text(), words, "{way:?}: {}", done.stderr);
        });
    }

    /// Runs a script in the image.
    pub fn run(&self, way: Way, script: &str) -> Finished {
        self.run_program(way, &["sh", "-c", script])
    }

    /// Runs a program of the image.
    pub fn run_program(&self, way: Way, words: &[&str]) -> Finished {
        match way.door {
            Door::Ctr => {
                let mut command = self.hv(way, &["ctr"]);
                command.arg(self.image_for(way)).args(&self.options).arg("--").args(words);
                finish(command, b"")
            }
            Door::Run => self.bundle(way, words).call("run", &[]),
            Door::Exec => {
                let bundle = self.bundle(way, &["sleep", "1000"]);
                let started = bundle.start();
                if started.status != Some(0) {
                    return started;
                }
                bundle.call("exec", words)
            }
        }
    }

    /// A bundle of this image whose process runs this program.
    pub fn bundle(&self, way: Way, words: &[&str]) -> Bundle<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("bundle-{number}"));
        fs::create_dir(&dir).unwrap();
        give(&dir, way);
        let mut config = self.template(way);
        let id = format!("attack-{}-{number}", std::process::id());
        config["root"] = json!({"path": self.image_for(way), "readonly": !self.own});
        config["process"]["args"] = json!(words);
        config["process"]["capabilities"] =
            json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES});
        if way.rooted {
            config["linux"]["cgroupsPath"] = json!(format!("/hv-test/{id}"));
        }
        (self.change)(&mut config);
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        Bundle { hostile: self, way, dir, id }
    }

    /// What `hv oci spec` writes for this caller.
    fn template(&self, way: Way) -> Value {
        static TEMPLATES: [OnceLock<Value>; 2] = [const { OnceLock::new() }; 2];
        let make = || {
            let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
            fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
            let mut spec = self.hv(way, &["oci", "spec", "--bundle"]);
            spec.arg(dir.path()).args((!way.rooted).then_some("--rootless"));
            finish(spec, b"").expect(0);
            let mut found: Value =
                serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
            found["process"]["terminal"] = json!(false);
            found
        };
        TEMPLATES[usize::from(way.rooted)].get_or_init(make).clone()
    }

    /// hv, called by whom the way says.
    pub fn hv(&self, way: Way, args: &[&str]) -> Command {
        let mut command = match way.rooted || !rustix::process::geteuid().is_root() {
            true => Command::new(support::program()),
            false => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(self.program());
                command
            }
        };
        command.args(args).current_dir(self.dir.path());
        if !way.rooted {
            command.env("HOME", "/").env_remove("XDG_RUNTIME_DIR");
        }
        command
    }

    /// hv where [`USER`] can reach it.
    fn program(&self) -> PathBuf {
        static REACHABLE: OnceLock<bool> = OnceLock::new();
        let program = support::program();
        let reachable = REACHABLE.get_or_init(|| {
            let mut test = Command::new("setpriv");
            test.args(["--reuid", USER, "--regid", USER, "--clear-groups", "test", "-x"]).arg(&program);
            test.status().is_ok_and(|status| status.success())
        });
        if *reachable {
            return program;
        }
        let place = self.dir.path().join("hv");
        if !place.exists() && fs::hard_link(&program, &place).is_err() {
            fs::copy(&program, &place).unwrap();
        }
        place
    }

    /// The image's directory; whoever calls hv owns it, if it is this test's.
    fn image_for(&self, way: Way) -> &Path {
        if self.own && rustix::process::geteuid().is_root() {
            let owner = if way.rooted { "0:0".into() } else { format!("{USER}:{USER}") };
            let given = Command::new("chown").args(["-hR", &owner]).arg(&self.image).status().unwrap();
            assert!(given.success());
        }
        &self.image
    }
}

/// Whether this is the testbed, where everything takes a hundred times as long.
pub fn emulated() -> bool {
    std::env::var_os("HV_BIN_DIR").is_some()
}

/// Makes a directory its user's.
fn give(dir: &Path, way: Way) {
    if !way.rooted && rustix::process::geteuid().is_root() {
        let user = USER.parse().unwrap();
        std::os::unix::fs::chown(dir, Some(user), Some(user)).unwrap();
    }
}

/// A bundle with a state directory of its own; its container goes with it.
pub struct Bundle<'a> {
    hostile: &'a Hostile,
    way: Way,
    /// Where it is.
    pub dir: PathBuf,
    /// Its container's name.
    pub id: String,
}

impl Bundle<'_> {
    /// `hv oci VERB ID WORDS`.
    pub fn command(&self, verb: &[&str], words: &[&str]) -> Command {
        let mut command = self.hostile.hv(self.way, &["oci", "--root"]);
        command.arg(self.dir.join("state")).args(verb).arg(&self.id).args(words).current_dir(&self.dir);
        command
    }

    /// The same, to its end.
    pub fn call(&self, verb: &str, words: &[&str]) -> Finished {
        finish(self.command(&[verb], words), b"")
    }

    /// Creates and starts; what goes on running keeps the streams, which are no pipes therefore.
    pub fn start(&self) -> Finished {
        let created = self.create(&[]);
        if created.status != Some(0) { created } else { self.call("start", &[]) }
    }

    /// Creates.
    pub fn create(&self, options: &[&str]) -> Finished {
        let error = self.dir.join("stderr");
        let mut verb = vec!["create"];
        verb.extend(options);
        let mut command = self.command(&verb, &[]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&error).unwrap());
        let status = command.status().unwrap().code();
        Finished { status, stdout: Vec::new(), stderr: fs::read_to_string(error).unwrap() }
    }

    /// The number of its process on the host.
    pub fn pid(&self) -> i32 {
        let state: Value = serde_json::from_slice(&self.call("state", &[]).stdout).unwrap();
        state["pid"].as_i64().unwrap() as i32
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        if !self.dir.join("state").join(&self.id).exists() {
            return;
        }
        let mut delete = self.command(&["delete", "--force"], &[]);
        delete.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = delete.status();
    }
}
