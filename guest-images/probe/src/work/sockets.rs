//! TCP through the loopback interface: a sandbox's own, and the host's for a bare process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use super::{Doing, Done, Timed};

/// What one operation of the stream writes.
const PIECE: usize = 64 << 10;

/// An operation: a byte to another thread on the same processor, and one back; no delay (Nagle's) in between.
pub fn round_trip(operations: u64) -> Done {
    let (mut near, mut far) = connection()?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut byte = [0u8];
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        });
        let mut byte = [1u8];
        let timed = Timed::repeat(operations, |_| {
            near.write_all(&byte).doing("cannot send")?;
            near.read_exact(&mut byte).doing("cannot receive")
        });
        drop(near);
        echo.join().map_err(|_| "the other thread ended badly".to_owned())?;
        timed
    })
}

/// An operation: 64 KiB sent by one thread and received by another; the last has arrived when the clock stops.
pub fn stream(operations: u64) -> Done {
    let (mut near, mut far) = connection()?;
    std::thread::scope(|scope| {
        let sink = scope.spawn(move || {
            let mut buffer = vec![0u8; PIECE];
            let mut arrived = 0u64;
            while let Ok(count @ 1..) = far.read(&mut buffer) {
                arrived += count as u64;
            }
            arrived
        });
        let piece = vec![1u8; PIECE];
        let began = Instant::now();
        let sent = (0..operations).try_for_each(|_| near.write_all(&piece).doing("cannot send"));
        drop(near);
        let arrived = sink.join().map_err(|_| "the other thread ended badly".to_owned())?;
        let timed = Timed::since(began, operations);
        sent?;
        if arrived == operations * PIECE as u64 {
            Ok(timed)
        } else {
            Err("not all that was sent arrived".into())
        }
    })
}

fn connection() -> Result<(TcpStream, TcpStream), String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("cannot listen on the loopback interface")?;
    let address = listener.local_addr().doing("cannot tell the address")?;
    let near = TcpStream::connect(address).doing("cannot connect on the loopback interface")?;
    let (far, _) = listener.accept().doing("cannot accept")?;
    for end in [&near, &far] {
        end.set_nodelay(true).doing("cannot send without delay")?;
    }
    Ok((near, far))
}
