//! Reads that the page cache inside does not answer: what lies below it is the block device of a microVM, and the
//! mounted image of the others.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, os::fd::AsFd};

use rustix::fs::{Advice, fadvise};
use rustix::io::pread;

use super::place::file_system;
use super::{Doing, Done, Timed, next};

const PAGE: u64 = 4096;
/// What one call of the sequential reader asks for.
const PIECE: u64 = 128 << 10;
/// A file that is smaller says little.
const LEAST: u64 = 256 << 10;
/// A file that is larger is used up to here.
const MOST: u64 = 64 << 20;
/// Directory entries that are looked at.
const ENTRIES: usize = 4000;
/// Never a disk's: files of kernels and sandboxes.
const NOT_THE_IMAGE: [&str; 3] = ["/proc", "/sys", "/dev"];

/// An operation: 4 KiB at a random place of the image's largest file, dropped from the page cache before.
pub fn random(operations: u64) -> Done {
    let (file, size) = largest()?;
    fadvise(&file, 0, None, Advice::Random).doing("cannot say how it is read")?;
    let mut page = [0; PAGE as usize];
    let mut state = 1;
    let mut timed = Timed::repeat(operations, |_| {
        state = next(state);
        let at = state % (size / PAGE) * PAGE;
        fadvise(&file, at, std::num::NonZeroU64::new(PAGE), Advice::DontNeed).doing("cannot drop a page")?;
        pread(&file, &mut page, at).doing("cannot read the image").map(drop)
    })?;
    timed.place = file_system(file.as_fd());
    Ok(timed)
}

/// An operation: 4 KiB of the image's largest file, read forwards with 128 KiB a call, again and again, each time
/// dropped from the page cache before.
pub fn sequential(operations: u64) -> Done {
    let (file, size) = largest()?;
    fadvise(&file, 0, None, Advice::Sequential).doing("cannot say how it is read")?;
    let mut piece = vec![0; PIECE as usize];
    let (mut done, mut at) = (0, size);
    let began = Instant::now();
    while done < operations {
        if at >= size {
            fadvise(&file, 0, None, Advice::DontNeed).doing("cannot drop the file's pages")?;
            at = 0;
        }
        let want = PIECE.min(size - at).min((operations - done) * PAGE);
        pread(&file, &mut piece[..want as usize], at).doing("cannot read the image")?;
        at += want;
        done += want / PAGE;
    }
    let timed = Timed::since(began, operations);
    Ok(Timed { place: file_system(file.as_fd()), ..timed })
}

/// The largest file of the image, and how much of it is used: whole pages.
fn largest() -> Result<(fs::File, u64), String> {
    let mut best: Option<(u64, PathBuf)> = None;
    let mut left = ENTRIES;
    // In the order of their names, so that every kind finds the same one.
    let mut directories = std::collections::VecDeque::from([PathBuf::from("/")]);
    while let Some(directory) = directories.pop_front() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if left == 0 {
                break;
            }
            left -= 1;
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.is_dir() && !NOT_THE_IMAGE.iter().any(|other| path == Path::new(other)) {
                directories.push_back(path);
            } else if found.is_file() && best.as_ref().is_none_or(|(size, _)| found.len() > *size) {
                best = Some((found.len(), path));
            }
        }
    }
    match best {
        Some((size, path)) if size >= LEAST => {
            let file = fs::File::open(&path).doing("cannot open the image's largest file")?;
            Ok((file, size.min(MOST) / PAGE * PAGE))
        }
        _ => Err(format!("the image has no file of {} KiB to read", LEAST >> 10)),
    }
}
