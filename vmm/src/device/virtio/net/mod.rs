//! virtio-net: an Ethernet device whose other end is a tap of the host. Virtio 1.2, section 5.1.
//!
//! - `link`: the tap; `settings`: addresses; `header`: what stands in front of each frame, checked.
//! - `receive`: host to guest; `transmit`: guest to host; `control`: how many queue pairs are used.
//!
//! Frames go straight between guest memory and the tap, one system call each. Checksums and segmentation
//! are left to whoever needs them: frames of 64 KiB pass as they are wherever both sides agree.
//!
//! The vCPU that notifies does not send by itself, unlike with disks: while a thread of the monitor sends, the
//! guest adds more frames without another exit, and the receiver takes several at a time. Sent by the vCPU, a
//! stream of frames of 1 KiB is three times as slow.

mod control;
mod counters;
mod header;
mod link;
mod receive;
mod settings;
#[cfg(test)]
mod tests;
mod transmit;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net as spec;

pub use counters::{Counter, Counters};
pub use link::{Link, Tap, TapError};
pub use settings::{BadMac, MAX_PAIRS, Mac, Nic};

use super::queue::Virtqueue;
use super::rate_limit::{Limits, RateLimiter};
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Meter, Progress, VirtioDevice};
use crate::memory::GuestMemory;
use receive::Receiver;
use transmit::Transmitter;

/// Descriptors of a queue that carries frames: Linux keeps 16 to 40 for one frame of 64 KiB.
const QUEUE: u16 = 256;
/// Descriptors of the control queue.
const CONTROL_QUEUE: u16 = 64;
/// Bytes of `struct virtio_net_config` up to and with `mtu`.
const CONFIG_BYTES: usize = 12;

/// A network device.
pub struct Net {
    name: String,
    link: Box<dyn Link>,
    mtu: u16,
    config: [u8; CONFIG_BYTES],
    queue_sizes: Vec<u16>,
    rx_limit: Option<RateLimiter>,
    tx_limit: Option<RateLimiter>,
    counters: Arc<Counters>,
    active: Option<Active>,
}

/// What of it can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The guest's address.
    pub mac: Mac,
    /// What the guest is told of the link.
    pub mtu: u16,
    /// How much the guest may receive.
    pub rx: Limits,
    /// How much it may send.
    pub tx: Limits,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    /// One a queue pair; None where the driver left its queue alone.
    receivers: Vec<Option<Receiver>>,
    transmitters: Vec<Option<Transmitter>>,
    /// The control queue and its index.
    control: Option<(usize, Virtqueue)>,
    /// How many pairs take part; frames that the driver sends on others wait.
    pairs: u16,
}

impl Net {
    /// A device over the tap that `nic` names, which it opens.
    ///
    /// # Errors
    /// The tap cannot be used.
    pub fn open(nic: &Nic) -> Result<Net, TapError> {
        let tap = Tap::open(&nic.tap, nic.pairs.clamp(1, MAX_PAIRS))?;
        let mtu = nic.mtu.unwrap_or(tap.mtu());
        let settings = Settings { mac: nic.mac, mtu, rx: nic.rx, tx: nic.tx };
        Net::new(&nic.tap, Box::new(tap), &settings).map_err(|source| TapError::Host {
            operation: "make a timer for the limits",
            name: nic.tap.clone(),
            source,
        })
    }

    /// A device with as many queue pairs as the link has queues.
    ///
    /// `name` is for messages.
    ///
    /// # Errors
    /// The host gives no timer for its limits.
    pub fn new(name: &str, link: Box<dyn Link>, settings: &Settings) -> io::Result<Net> {
        let pairs = link.queues().len();
        let mut queue_sizes = vec![QUEUE; 2 * pairs];
        if pairs > 1 {
            queue_sizes.push(CONTROL_QUEUE);
        }
        let Settings { mac, mtu, rx, tx } = *settings;
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&mac.0);
        config[6..8].copy_from_slice(&(spec::VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        config[8..10].copy_from_slice(&(pairs as u16).to_le_bytes());
        config[10..].copy_from_slice(&mtu.to_le_bytes());
        Ok(Net {
            name: format!("net {name:?}"),
            link,
            mtu,
            config,
            queue_sizes,
            rx_limit: RateLimiter::new(rx)?,
            tx_limit: RateLimiter::new(tx)?,
            counters: Arc::default(),
            active: None,
        })
    }

    fn max_pairs(&self) -> usize {
        self.link.queues().len()
    }

    fn receive(&mut self, pair: usize) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        let (Some(Some(receiver)), Some(from)) =
            (active.receivers.get_mut(pair), self.link.queues().get(pair))
        else {
            return Ok(Progress::Done);
        };
        receiver.run(from, &active.memory, &active.interrupt, &self.counters, &mut self.rx_limit)
    }

    /// Sends what is there on a pair's queue.
    fn transmit(&mut self, pair: usize) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        let (Some(Some(transmitter)), Some(to)) =
            (active.transmitters.get_mut(pair), self.link.queues().get(pair))
        else {
            return Ok(Progress::Done);
        };
        if pair >= usize::from(active.pairs) {
            return Ok(Progress::Done);
        }
        transmitter.run(to, &active.memory, &active.interrupt, &self.counters, &mut self.tx_limit)
    }

    /// Commands of the driver; then whatever pairs have to do that now take part.
    fn control(&mut self) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        let Active { memory, interrupt, receivers, transmitters, control, pairs, .. } = active;
        let Some((_, queue)) = control else { return Ok(Progress::Done) };
        let link = &mut self.link;
        let set_up =
            receivers.iter().zip(transmitters.iter()).take_while(|(rx, tx)| rx.is_some() && tx.is_some());
        let set_up = set_up.count();
        let before = *pairs;
        let progress = queue.serve(memory, interrupt, |chain| {
            Some(control::serve(chain, |wanted| {
                let possible = (1..=set_up).contains(&usize::from(wanted)) && link.use_pairs(wanted).is_ok();
                if possible {
                    *pairs = wanted;
                }
                possible
            }))
        })?;
        let after = *pairs;
        (before..after).map(usize::from).try_fold(progress, |progress, pair| {
            Ok(progress.and(self.receive(pair)?).and(self.transmit(pair)?))
        })
    }

    fn limits_renewed(&mut self) -> Result<Progress, DeviceError> {
        (0..self.max_pairs()).try_fold(Progress::Done, |progress, pair| {
            Ok(progress.and(self.receive(pair)?).and(self.transmit(pair)?))
        })
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let always = [
            spec::VIRTIO_NET_F_MAC,
            spec::VIRTIO_NET_F_STATUS,
            spec::VIRTIO_NET_F_MTU,
            spec::VIRTIO_NET_F_MRG_RXBUF,
            spec::VIRTIO_NET_F_CSUM,
            spec::VIRTIO_NET_F_HOST_TSO4,
            spec::VIRTIO_NET_F_HOST_TSO6,
            spec::VIRTIO_NET_F_HOST_ECN,
            spec::VIRTIO_NET_F_HOST_UFO,
        ];
        let udp = [spec::VIRTIO_NET_F_HOST_USO];
        let several = [spec::VIRTIO_NET_F_CTRL_VQ, spec::VIRTIO_NET_F_MQ];
        let udp = if self.link.takes_udp_segments() { &udp[..] } else { &[] };
        let several = if self.max_pairs() > 1 { &several[..] } else { &[] };
        let bits = always.iter().chain(udp).chain(several);
        bits.fold(link::features_of(self.link.offloads()), |features, bit| features | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn meter(&self) -> Option<Arc<dyn Meter>> {
        Some(Arc::clone(&self.counters) as _)
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let host = |operation| move |source| ActivateError::Host { operation, source };
        let features = activation.features;
        let has = |bit: u32| features & 1 << bit != 0;
        // Nothing of a driver before this one.
        self.link.use_pairs(1).map_err(host("detach the tap's other queues"))?;
        self.link.set_offloads(link::offloads_of(features)).map_err(host("set the tap's offloads"))?;
        let mut receivers = vec![Some(activation.take_queue(0)?)];
        let mut transmitters = vec![Some(activation.take_queue(1)?)];
        let several = has(spec::VIRTIO_NET_F_MQ);
        let max_pairs = if several { self.max_pairs() } else { 1 };
        let mut take = |index: usize| activation.queues.get_mut(index).and_then(Option::take);
        for pair in 1..max_pairs {
            receivers.push(take(2 * pair));
            transmitters.push(take(2 * pair + 1));
        }
        let control_index = 2 * max_pairs;
        let control = if has(spec::VIRTIO_NET_F_CTRL_VQ) { take(control_index) } else { None };
        let Activation { memory, interrupt, .. } = activation;
        let receiver = |queue| Receiver::new(queue, &memory, features, self.mtu);
        let receivers = receivers.into_iter().map(|queue| queue.map(receiver)).collect();
        let transmitter = |queue| Transmitter::new(queue, features);
        let transmitters = transmitters.into_iter().map(|queue| queue.map(transmitter)).collect();
        let control = control.map(|queue| (control_index, queue));
        self.active = Some(Active { memory, interrupt, receivers, transmitters, control, pairs: 1 });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }

    /// The tap's queues, then the limits' timers.
    fn sources(&self) -> Vec<RawFd> {
        let queues = self.link.queues().iter().map(AsRawFd::as_raw_fd);
        queues
            .chain(
                [&self.rx_limit, &self.tx_limit].into_iter().flatten().map(|limit| limit.timer().as_raw_fd()),
            )
            .collect()
    }

    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError> {
        let control = self.active.as_ref().and_then(|active| Some(active.control.as_ref()?.0));
        match event {
            Event::Queue(index) if Some(index) == control => self.control(),
            Event::Queue(index) if index % 2 == 0 => self.receive(index / 2),
            Event::Queue(index) => self.transmit(index / 2),
            Event::Source(index) if index < self.max_pairs() => self.receive(index),
            Event::Source(_) => self.limits_renewed(),
        }
    }
}
