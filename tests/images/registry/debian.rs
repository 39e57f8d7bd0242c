//! Round trips with Debian's docker-registry, and skopeo on its other side.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Home;
use super::server::Image;
use crate::support::finish;

/// The user `u` with the password `secret`, as htpasswd -B writes it.
const HTPASSWD: &str = "u:$2b$04$6J19rig90Mh9WaGeCVBkg..ppju.rNCNbQHhaGQQjEHy8IOZXFB0W\n";

/// A docker-registry that runs for as long as this lives.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether these programs are here; says so if they are not.
fn have(programs: &[&str]) -> bool {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    let absent: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    if !absent.is_empty() {
        println!("skipped: not installed: {absent:?} (Debian: docker-registry, skopeo, openssl)");
    }
    absent.is_empty()
}

impl Registry {
    /// With its data in `dir`; `more`: further lines of its configuration, below `http:` first.
    fn start(dir: &Path, more: &str) -> Registry {
        // Its port cannot be asked for: one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let data = dir.join("registry");
        fs::create_dir_all(&data).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: {address}\n{more}",
            data.display()
        );
        let path = dir.join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("OTEL_TRACES_EXPORTER", "none");
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            said.push(line.unwrap());
            if said.last().is_some_and(|line| line.contains("listening on")) {
                // It goes on talking; somebody has to listen.
                std::thread::spawn(move || lines.for_each(drop));
                return Registry { child, address };
            }
        }
        let _ = child.wait();
        panic!("docker-registry ended: {said:#?}");
    }
}

#[track_caller]
fn skopeo(args: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(args);
    finish(command, b"").expect(0).text()
}

#[test]
fn images_go_round_with_skopeo() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let (home, image) = (Home::new(), Image::new(300_000));
    let registry = Registry::start(home.path(), "");
    let at = |name: &str| format!("{}/{name}", registry.address);
    let layout = home.path().join("layout");
    image.layout(&layout);
    let from = format!("oci:{}:it", layout.display());
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &format!("docker://{}", at("team/app:1")),
    ]);
    // From skopeo to hv.
    let done = home.run(&["pull", &at("team/app:1")]).expect(0);
    assert_eq!(done.text(), format!("{}@{}\n", at("team/app:1"), image.digest()));
    home.run(&["pull", &at(&format!("team/app@{}", image.digest()))]).expect(0);
    // From hv to skopeo: the same bytes, mounted or sent, whole or in pieces.
    for (name, chunk) in [("team/copy:2", None), ("other/pieces:3", Some("100000"))] {
        let (source, target) = (at("team/app:1"), at(name));
        let chunk: Vec<&str> = chunk.iter().flat_map(|size| ["--chunk", size]).collect();
        home.run(&[&["push", &source, &target][..], &chunk].concat()).expect(0);
        let back = home.path().join(name.replace([':', '/'], "-"));
        let to = format!("oci:{}:it", back.display());
        skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &format!("docker://{target}"), &to]);
        let index = fs::read_to_string(back.join("index.json")).unwrap();
        assert!(index.contains(&image.digest()), "{index}");
    }
    assert_eq!(home.run(&["image", "tags", &at("team/copy")]).expect(0).text(), "2\n");
    let found = home.run(&["image", "search", &at("team/")]).expect(0).text();
    assert_eq!(found, format!("{}\n{}\n", at("team/app"), at("team/copy")));
    let done = home.run(&["image", "search", "--json", &at("")]).expect(0);
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found.as_array().map(Vec::len), Some(3), "{found}");
    let absent = home.run(&["pull", &at("team/absent")]).expect(125);
    assert!(absent.stderr.contains("hv image tags"), "{}", absent.stderr);
}

#[test]
fn a_blob_that_is_new_there_is_sent_in_pieces() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let (home, image) = (Home::new(), Image::new(300_000));
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    let (one, other) = (Registry::start(&one, ""), Registry::start(&other, ""));
    let layout = home.path().join("layout");
    image.layout(&layout);
    let (source, target) = (format!("{}/app:1", one.address), format!("{}/app:1", other.address));
    let from = format!("oci:{}:it", layout.display());
    skopeo(&["copy", "--preserve-digests", "--dest-tls-verify=false", &from, &format!("docker://{source}")]);
    home.run(&["pull", &source]).expect(0);
    home.run(&["push", &source, &target, "--chunk", "65536"]).expect(0);
    let digest =
        skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{target}")]);
    assert_eq!(digest.trim(), image.digest());
    // And all of it is there: it comes back into an empty store.
    Home::new().run(&["pull", &target]).expect(0);
}

#[test]
fn passwords_and_tls() {
    if !have(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let (home, image) = (Home::new(), Image::new(1000));
    let dir = home.path();
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    command.args([
        "-subj",
        "/CN=test",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    command.arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("cert.pem"));
    finish(command, b"").expect(0);
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let (cert, key, users) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("htpasswd"));
    let more = format!(
        "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        cert.display(),
        key.display(),
        users.display()
    );
    let registry = Registry::start(dir, &more);
    let name = format!("{}/app:1", registry.address);
    let layout = dir.join("layout");
    image.layout(&layout);
    let from = format!("oci:{}:it", layout.display());
    let to = format!("docker://{name}");
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        "--dest-creds",
        "u:secret",
        &from,
        &to,
    ]);
    let run = |args: &[&str], stdin: &[u8]| {
        let mut command = home.hv(args);
        command.env("SSL_CERT_FILE", &cert);
        finish(command, stdin)
    };
    run(&["pull", &name], b"").expect(125);
    let wrong = run(&["login", &registry.address, "-u", "u", "--password-stdin"], b"wrong").expect(125);
    assert!(wrong.stderr.contains("not right"), "{}", wrong.stderr);
    run(&["login", &registry.address, "-u", "u", "--password-stdin"], b"secret").expect(0);
    run(&["pull", &name], b"").expect(0);
    run(&["push", &name, &format!("{}/app:2", registry.address)], b"").expect(0);
    // skopeo reads what hv login has kept.
    let auth = dir.join("docker/config.json");
    let tags = skopeo(&[
        "list-tags",
        "--tls-verify=false",
        "--authfile",
        &auth.display().to_string(),
        &format!("docker://{}/app", registry.address),
    ]);
    assert!(tags.contains("\"2\""), "{tags}");
    // Who signed it nobody here knows.
    let unknown = home.run(&["pull", &name]).expect(125);
    assert!(unknown.stderr.contains("certificate"), "{}", unknown.stderr);
}
