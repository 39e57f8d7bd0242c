//! A registry inside the test: as honest as a test wants it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// `sha256:…` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether it asks for the blob or manifest of this digest, or the tag.
    pub fn is_for(&self, what: &str) -> bool {
        self.path.split('?').next().is_some_and(|path| path.ends_with(&format!("/{what}")))
    }

    /// The first byte that it wants.
    pub fn start(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
    }

    fn read(stream: &mut TcpStream) -> io::Result<Request> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Ok(Request { method, path, headers })
    }
}

/// A server, until the test ends.
#[derive(Clone)]
pub struct Server {
    /// Host and port.
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// One request a connection, each in a thread of its own.
    pub fn start(
        handle: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { address: listener.local_addr().unwrap().to_string(), log: Arc::default() };
        let (log, handle) = (Arc::clone(&server.log), Arc::new(handle));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (log, handle) = (Arc::clone(&log), Arc::clone(&handle));
                thread::spawn(move || {
                    let Ok(request) = Request::read(&mut stream) else { return };
                    // hv asks a host on this machine first whether it speaks TLS.
                    if request.path != "/v2/" {
                        log.lock().unwrap().push(request.clone());
                    }
                    let _ = handle(&request, &mut stream);
                });
            }
        });
        server
    }

    /// What was asked so far.
    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How often this was asked for.
    pub fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|request| request.is_for(what)).count()
    }
}

/// Answers, and closes the connection.
pub fn answer(to: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
    head(to, status, headers, body.len())?;
    to.write_all(body)
}

/// The beginning of an answer of so many bytes.
pub fn head(to: &mut TcpStream, status: &str, headers: &[(&str, &str)], length: usize) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    to.write_all((text + "\r\n").as_bytes())
}

/// Says nothing more until the other side has had enough.
pub fn stall(stream: &mut TcpStream) -> io::Result<()> {
    stream.read(&mut [0]).map(drop)
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// With a layer of so many bytes, a tar archive of one file.
    pub fn new(size: usize) -> Image {
        let layer = tar(&(0..size).map(|at| (at * 7 % 251) as u8).collect::<Vec<u8>>());
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/file"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = Image::manifest(&config, &[&layer]);
        Image { layer, config, manifest }
    }

    /// A manifest of a configuration and layers.
    pub fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
        let of = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let layers: Vec<_> =
            layers.iter().map(|layer| of("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": of("application/vnd.oci.image.config.v1+json", config), "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    /// Digests of the layer and of the manifest.
    pub fn layer_digest(&self) -> String {
        digest(&self.layer)
    }

    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Answers as a registry does that has this image under every name and tag.
    pub fn serve(&self, request: &Request, to: &mut TcpStream) -> io::Result<()> {
        if request.path == "/v2/" {
            return answer(to, "200 OK", &[], b"{}");
        }
        for blob in [&self.layer, &self.config] {
            if request.is_for(&digest(blob)) {
                return piece(request, to, blob);
            }
        }
        if request.path.contains("/manifests/") {
            return answer(to, "200 OK", &[("Content-Type", MANIFEST)], &self.manifest);
        }
        answer(to, "404 Not Found", &[], b"")
    }

    /// As an OCI layout, for other programs.
    pub fn layout(&self, dir: &std::path::Path) {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in [&self.layer, &self.config, &self.manifest] {
            std::fs::write(blobs.join(&digest(blob)[7..]), blob).unwrap();
        }
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "it"},
        }]});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

/// What is asked for of these bytes, from where it is asked for.
pub fn piece(request: &Request, to: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match request.start() {
        0 => answer(to, "200 OK", &[], bytes),
        start => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            answer(to, "206 Partial Content", &[("Content-Range", &range)], &bytes[start..])
        }
    }
}

/// An archive of one file (POSIX.1-1988, "ustar").
fn tar(data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "file");
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", data.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; data.len().next_multiple_of(512) - data.len() + 1024];
    [&header[..], data, &padding].concat()
}
