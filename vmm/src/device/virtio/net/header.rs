//! `struct virtio_net_hdr_v1`, in front of each frame. Virtio 1.2, section 5.1.6.

use virtio_bindings::virtio_net as spec;

/// Its length, in bytes.
pub const LEN: usize = 12;
/// Where `num_buffers` is in it.
pub const NUM_BUFFERS: usize = 10;
/// Ethernet's own header.
const ETHERNET: usize = 14;
/// The same with a VLAN tag.
pub const LONGEST_ETHERNET: usize = ETHERNET + 4;
/// The longest frame: 65536 bytes behind a header with a VLAN tag.
pub const LONGEST_FRAME: usize = LONGEST_ETHERNET + 65536;

/// A header that the driver may send with a frame of `len` bytes, with `features` negotiated; None if it
/// may not.
///
/// The host's kernel takes frames apart by this header. It checks, but it is also where mistakes have been
/// found (CVE-2020-16843's class, and `virtio_net_hdr_to_skb` since): so only what was agreed on, and what
/// lies within the frame, gets as far as that. What the standard tells a device to ignore is zero in it.
pub fn checked(header: [u8; LEN], len: usize, features: u64) -> Option<[u8; LEN]> {
    if !(ETHERNET..=LONGEST_FRAME).contains(&len) {
        return None;
    }
    let has = |bit: u32| features & 1 << bit != 0;
    let [flags, kind, ..] = header;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (header_len, segment, start, offset) = (word(2), word(4), word(6), word(8));
    let mut checked = [0; LEN];
    let needs_checksum = u32::from(flags) & spec::VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    if needs_checksum {
        if !has(spec::VIRTIO_NET_F_CSUM) || usize::from(start) + usize::from(offset) + 2 > len {
            return None;
        }
        checked[0] = spec::VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        checked[6..10].copy_from_slice(&header[6..10]);
    }
    let congestion = u32::from(kind) & spec::VIRTIO_NET_HDR_GSO_ECN;
    let (needed, is_tcp) = match u32::from(kind) & !spec::VIRTIO_NET_HDR_GSO_ECN {
        spec::VIRTIO_NET_HDR_GSO_NONE => return (congestion == 0).then_some(checked),
        spec::VIRTIO_NET_HDR_GSO_TCPV4 => (spec::VIRTIO_NET_F_HOST_TSO4, true),
        spec::VIRTIO_NET_HDR_GSO_TCPV6 => (spec::VIRTIO_NET_F_HOST_TSO6, true),
        spec::VIRTIO_NET_HDR_GSO_UDP => (spec::VIRTIO_NET_F_HOST_UFO, false),
        spec::VIRTIO_NET_HDR_GSO_UDP_L4 => (spec::VIRTIO_NET_F_HOST_USO, false),
        _ => return None,
    };
    let congestion_agreed = congestion == 0 || is_tcp && has(spec::VIRTIO_NET_F_HOST_ECN);
    if !has(needed) || !congestion_agreed || !needs_checksum || segment == 0 {
        return None;
    }
    checked[1] = kind;
    // Only a hint: no longer than the frame.
    checked[2..4].copy_from_slice(&header_len.min(len.try_into().unwrap_or(u16::MAX)).to_le_bytes());
    checked[4..6].copy_from_slice(&segment.to_le_bytes());
    Some(checked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TSO: u64 = 1 << spec::VIRTIO_NET_F_CSUM | 1 << spec::VIRTIO_NET_F_HOST_TSO4;

    fn segmented(kind: u8, segment: u16) -> [u8; LEN] {
        let [low, high] = segment.to_le_bytes();
        [1, kind, 54, 0, low, high, 34, 0, 16, 0, 0, 0]
    }

    #[test]
    fn plain_frames_need_nothing() {
        assert_eq!(checked([0; LEN], 60, 0), Some([0; LEN]));
        let mut ignored = [0; LEN];
        // Not for the device: data valid, a hint and segment size of no segmentation, num_buffers.
        (ignored[0], ignored[2], ignored[4], ignored[10]) = (2, 99, 99, 99);
        assert_eq!(checked(ignored, 60, 0), Some([0; LEN]));
    }

    #[test]
    fn bug_14_offloads_that_were_not_negotiated_are_refused() {
        let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        assert_eq!(checked(checksum, 60, 0), None);
        assert_eq!(checked(checksum, 60, TSO), Some(checksum));
        for kind in 0..=u8::MAX {
            let header = segmented(kind, 1448);
            let allowed = kind == 1;
            assert_eq!(checked(header, 60_000, TSO).is_some(), allowed || kind == 0, "{kind}");
            assert_eq!(checked(header, 60_000, 0), None, "{kind}");
        }
        let all = !(1u64 << spec::VIRTIO_NET_F_HOST_ECN);
        assert_eq!(checked(segmented(0x81, 1448), 60_000, all), None);
        assert!(checked(segmented(0x81, 1448), 60_000, u64::MAX).is_some());
        assert_eq!(checked(segmented(0x83, 1448), 60_000, u64::MAX), None, "UDP has no ECN of this kind");
    }

    #[test]
    fn bug_14_a_header_that_points_out_of_its_frame_is_refused() {
        assert_eq!(checked(segmented(1, 0), 60_000, TSO), None, "segments of nothing");
        assert_eq!(checked(segmented(1, 1448), 51, TSO), None, "a checksum behind the end");
        assert_eq!(checked([1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0], 60_000, TSO), None);
        let mut no_checksum = segmented(1, 1448);
        no_checksum[0] = 0;
        assert_eq!(checked(no_checksum, 60_000, TSO), None);
        for len in [0, 13, LONGEST_FRAME + 1, usize::MAX] {
            assert_eq!(checked([0; LEN], len, TSO), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_agreed_on_and_inside(header: [u8; LEN], len in 0..70_000usize, features: u64) {
            if let Some(passed) = checked(header, len, features) {
                prop_assert!(passed[0] <= 1);
                let word = |at: usize| usize::from(u16::from_le_bytes([passed[at], passed[at + 1]]));
                prop_assert!(passed[0] == 0 || word(6) + word(8) + 2 <= len);
                prop_assert!(word(2) <= len);
                prop_assert!(passed[1] == 0 || word(4) > 0 && passed[0] == 1);
                prop_assert_eq!(checked(passed, len, features), Some(passed));
            }
        }
    }
}
