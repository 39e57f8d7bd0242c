//! What is typed, what is asked for at the control socket, what the guest's init says.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use clap::FromArgMatches;
use hv::cli::{self, Cli};
use hv::control::request::{self, MAX_BODY, Progress};
use hv::control::{response, route};
use hv_common::wire::{self, FromGuest, MAX_FRAME};

use crate::input::Input;

/// Options whose values have a grammar of their own.
const OPTIONS: [&str; 14] = [
    "--disk",
    "--net",
    "--balloon=",
    "--cpu-template",
    "--cpu-pin",
    "--hugepages=",
    "--port",
    "--cpus",
    "--memory",
    "--env",
    "--user",
    "--name",
    "--hostname",
    "--boot-timeout",
];

/// The grammar of `hv vm`.
pub fn arguments(data: &[u8]) {
    let mut input = Input(data);
    let mut words: Vec<&OsStr> = vec!["hv".as_ref(), "vm".as_ref()];
    let mut joined = Vec::new();
    for _ in 0..4 {
        if input.is_empty() {
            break;
        }
        let option = OPTIONS[usize::from(input.u8()) % OPTIONS.len()];
        joined.push((option, input.block()));
    }
    let joined: Vec<Vec<u8>> = joined
        .into_iter()
        .flat_map(|(option, value)| match option.ends_with('=') {
            true => vec![[option.as_bytes(), value].concat()],
            false => vec![option.into(), value.into()],
        })
        .collect();
    words.extend(joined.iter().map(|word| OsStr::from_bytes(word)));
    words.extend([OsStr::new("image"), OsStr::new("--"), OsStr::new("true")]);
    if let Ok(found) = cli::command().try_get_matches_from(words) {
        let _ = Cli::from_arg_matches(&found);
    }
}

/// The control socket: a request is read the same in one piece or in two, and answered.
pub fn control(data: &[u8]) {
    let whole = request::parse(data);
    let cut = data.len() / 2;
    match (request::parse(&data[..cut]), &whole) {
        (Ok(Progress::Partial), _) => {}
        // Told before it is whole, and not told otherwise later.
        (early, whole) => assert_eq!(&early, whole),
    }
    let refusal = match whole {
        Ok(Progress::Partial) => return,
        Ok(Progress::Whole(request)) => {
            assert!(request.body.len() <= MAX_BODY);
            match route::route(&request) {
                Ok(_) => return,
                Err(refusal) => refusal,
            }
        }
        Err(refusal) => refusal,
    };
    let told = response::refusal(&refusal);
    assert!(told.starts_with(b"HTTP/1.1 4") || told.starts_with(b"HTTP/1.1 5"));
}

/// Frames of the guest's init.
pub fn wire(data: &[u8]) {
    let mut from = data;
    while let Ok(Some(message)) = wire::read_frame::<FromGuest>(&mut from) {
        let again = wire::encode(&message).expect("what came in a frame fits in one");
        assert!(again.len() <= MAX_FRAME);
        assert_eq!(wire::decode::<FromGuest>(&again).expect("it was encoded just now"), message);
    }
}
