//! Pulls that are broken off, and pulls beside each other.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex};

use rustix::process::Signal;

use super::Home;
use super::server::{Image, Server, head, piece, stall};
use crate::support::{Running, finish};

const SIZE: usize = 3 << 20;
const HALF: usize = SIZE / 2;

/// Gives half of the layer the first time, then does this; later, what is asked for.
fn half_first(
    image: Image,
    then: impl Fn(&mut std::net::TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Server {
    let attempt = AtomicUsize::new(0);
    Server::start(move |request, to| {
        let first = request.is_for(&image.layer_digest()) && attempt.fetch_add(1, Ordering::SeqCst) == 0;
        if !first {
            return image.serve(request, to);
        }
        head(to, "200 OK", &[], image.layer.len())?;
        to.write_all(&image.layer[..HALF])?;
        then(to)
    })
}

/// Where requests for the layer began.
fn starts(server: &Server, image: &Image) -> Vec<usize> {
    let log = server.log();
    log.iter()
        .filter(|request| request.is_for(&image.layer_digest()))
        .map(|request| request.start())
        .collect()
}

#[test]
fn a_connection_that_closes_early_is_resumed() {
    let image = Image::new(SIZE);
    let server = half_first(image.clone(), |_| Ok(()));
    let home = Home::new();
    home.run(&["pull", &format!("{}/app", server.address)]).expect(0);
    assert!(home.has(&image.layer_digest()));
    assert_eq!(starts(&server, &image), [0, HALF]);
}

#[test]
fn a_registry_that_stalls_is_asked_again() {
    let image = Image::new(SIZE);
    let server = half_first(image.clone(), stall);
    let home = Home::new();
    home.run(&["pull", &format!("{}/app", server.address)]).expect(0);
    assert_eq!(starts(&server, &image), [0, HALF]);
}

#[test]
fn a_registry_that_only_stalls_is_given_up() {
    let server = Server::start(|_, to| stall(to));
    let done = Home::new().run(&["pull", &format!("{}/app", server.address)]).expect(125);
    assert!(done.stderr.contains("cannot get app:latest"), "{}", done.stderr);
    assert_eq!(server.count("latest"), 3, "one attempt and two retries");
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let image = Image::new(SIZE);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let server = half_first(image.clone(), move |to| {
        let _ = tell.lock().unwrap().send(());
        stall(to)
    });
    let home = Home::new();
    home.settings(r#"{"stall-seconds": 60, "retries": 0}"#);
    let name = format!("{}/app", server.address);
    let running = Running::start(home.hv(&["pull", &name]));
    told.recv().unwrap();
    // Some of it has been written, wherever it is killed.
    let partial = home.store().join(".partial").join(&image.layer_digest()[7..]);
    while std::fs::metadata(&partial).map_or(0, |file| file.len()) == 0 {
        std::thread::yield_now();
    }
    running.signal(Signal::KILL);
    assert_eq!(running.finish().status, None);
    assert!(home.is_empty() && !home.has(&image.layer_digest()));
    home.run(&["pull", &name]).expect(0);
    assert!(home.has(&image.layer_digest()));
    let starts = starts(&server, &image);
    assert!(starts.len() == 2 && starts[1] > 0, "{starts:?}");
}

#[test]
fn two_pulls_of_one_image_fetch_it_once() {
    let image = Image::new(SIZE);
    let served = image.clone();
    let manifests = (Mutex::new(0), Condvar::new());
    let server = Server::start(move |request, to| {
        let (count, changed) = &manifests;
        if request.path.contains("/manifests/") {
            *count.lock().unwrap() += 1;
            changed.notify_all();
        } else if request.is_for(&served.layer_digest()) {
            // Not before both of them are there.
            drop(changed.wait_while(count.lock().unwrap(), |count| *count < 2).unwrap());
            return piece(request, to, &served.layer);
        }
        served.serve(request, to)
    });
    let home = Home::new();
    home.settings(r#"{"stall-seconds": 60}"#);
    let name = format!("{}/app", server.address);
    let (one, other) = (Running::start(home.hv(&["pull", &name])), Running::start(home.hv(&["pull", &name])));
    one.finish().expect(0);
    other.finish().expect(0);
    assert_eq!(server.count(&image.layer_digest()), 1);
}

#[test]
fn a_full_disk_is_told_and_leaves_no_name() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root to mount a small file system");
    }
    let image = Image::new(SIZE);
    let server = Server::start(move |request, to| image.serve(request, to));
    let home = Home::new();
    let mounts = "mount -t tmpfs -o size=1m none /var/lib; mount --bind $HOME/cache /var/cache";
    let done = finish(home.hv_on(mounts, &["pull", &format!("{}/app", server.address)]), b"").expect(125);
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
}
