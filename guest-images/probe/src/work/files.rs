//! Files in a fresh directory of the writable layer.

use rustix::fs::{AtFlags, Mode, OFlags, fsync as sync, openat, statat};
use rustix::io::{pread, pwrite, read as read_once, write};

use super::place::Place;
use super::{Doing, Done, Timed};

const PAGE: [u8; 4096] = [0x5a; 4096];
/// Files that are looked at and read.
const FILES: u64 = 100;

/// An operation: a new file, 4 KiB written to it, and its descriptor closed. Removing them is not part of it.
pub fn create(operations: u64) -> Done {
    with_place(|place| {
        let timed = Timed::repeat(operations, |number| {
            let file = place.create(&name(number))?;
            write(&file, &PAGE).doing("cannot write to a file").map(drop)
        });
        remove(place, operations);
        timed
    })
}

/// An operation: fstatat(2) of one of 100 files, by its name.
pub fn stat(operations: u64) -> Done {
    with_files(|place, names| {
        Timed::repeat(operations, |number| {
            let name = &names[(number % FILES) as usize];
            statat(place.fd(), name.as_str(), AtFlags::empty()).doing("cannot look at a file").map(drop)
        })
    })
}

/// An operation: one of 100 files opened, its 4 KiB read, and closed.
pub fn read(operations: u64) -> Done {
    with_files(|place, names| {
        let mut page = PAGE;
        Timed::repeat(operations, |number| {
            let name = &names[(number % FILES) as usize];
            let file = openat(place.fd(), name.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .doing("cannot open a file")?;
            match read_once(&file, &mut page).doing("cannot read a file")? {
                4096 => Ok(()),
                count => Err(format!("a file of 4096 bytes has {count}")),
            }
        })
    })
}

/// An operation: 4 KiB written over the same place of a file, and fsync(2). On a file system in memory, as a
/// sandbox's writable layer is, there is nothing to wait for: then this is what the two calls cost.
pub fn fsync(operations: u64) -> Done {
    with_place(|place| {
        let file = place.create("one")?;
        let timed = Timed::repeat(operations, |_| {
            pwrite(&file, &PAGE, 0).doing("cannot write to a file")?;
            sync(&file).doing("cannot wait for a file")
        });
        place.remove("one")?;
        timed
    })
}

fn with_place(work: impl FnOnce(&Place) -> Done) -> Done {
    let place = Place::make()?;
    let timed = work(&place)?;
    Ok(Timed { place: place.file_system(), ..timed })
}

fn with_files(work: impl FnOnce(&Place, &[String]) -> Done) -> Done {
    with_place(|place| {
        let names: Vec<String> = (0..FILES).map(name).collect();
        for name in &names {
            let file = place.create(name)?;
            write(&file, &PAGE).doing("cannot write to a file")?;
            let mut back = [0; 1];
            pread(&file, &mut back, 0).doing("cannot read a file")?;
        }
        let timed = work(place, &names);
        remove(place, FILES);
        timed
    })
}

fn name(number: u64) -> String {
    format!("file-{number}")
}

/// What was made of so many files.
fn remove(place: &Place, files: u64) {
    for number in 0..files {
        // One that is not there was not made.
        let _ = place.remove(&name(number));
    }
}
