//! The control queue: how many queue pairs the driver uses. Virtio 1.2, section 5.1.6.5.

use virtio_bindings::virtio_net as spec;

use crate::device::virtio::chain::Chain;

/// Carries out a command; how many bytes of the chain were written. `use_pairs` says whether it could.
pub fn serve(chain: Chain, mut use_pairs: impl FnMut(u16) -> bool) -> u32 {
    let Chain { readable: mut command, writable: acknowledgement, .. } = chain;
    if acknowledgement.is_empty() {
        // Without room for an answer there is none; neither is anything done.
        return 0;
    }
    let done = match command.take_array::<2>().map(|command| command.map(u32::from)) {
        Some([spec::VIRTIO_NET_CTRL_MQ, spec::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET]) => {
            command.take_array().is_some_and(|pairs| use_pairs(u16::from_le_bytes(pairs)))
        }
        _ => false,
    };
    let answer = if done { spec::VIRTIO_NET_OK } else { spec::VIRTIO_NET_ERR };
    acknowledgement.copy_from(&[answer as u8]) as u32
}
