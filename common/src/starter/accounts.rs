//! An image's `/etc/passwd` and `/etc/group`, which anyone may have written.
//!
//! Lines that make no sense are skipped, as getpwent(3) and docker do; the first entry that fits wins.

/// One user of `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User<'a> {
    pub name: &'a [u8],
    pub uid: u32,
    pub gid: u32,
    pub home: &'a [u8],
}

/// One group of `/etc/group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub name: &'a [u8],
    pub gid: u32,
    members: &'a [u8],
}

impl Group<'_> {
    /// Whether the group lists the user of this name.
    pub fn has(&self, user: &[u8]) -> bool {
        self.members.split(|b| *b == b',').any(|member| member == user)
    }
}

/// The users, in order.
pub(super) fn users(file: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(User { name, uid, gid, home })
    })
}

/// The groups, in order.
pub(super) fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members })
    })
}

/// A user or group id: decimal digits, at most 2^31 - 1, as docker bounds them (so that no id is the
/// -1 that the kernel reads as "leave it").
pub(super) fn id(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits)?.parse::<u32>().ok()?;
    i32::try_from(number).ok().map(|_| number)
}

/// The fields of each line that could be an entry: it has a name, is no comment, and holds no NUL,
/// which no name or path may.
fn lines(file: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    file.split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.contains(&0) && !line.starts_with(b"#") && !line.starts_with(b":"))
        .map(|line| line.split(|b| *b == b':'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_read_and_nonsense_is_skipped() {
        let file = b"# comment\n\nroot:x:0:0:root:/root:/bin/sh\n+::::::\n:x:1:1::/:\nbad:x:-1:0::/:\n\
            big:x:4294967295:0::/:\nnul\0:x:5:5::/:\nshort:x:7:8\ntail:x:9:9:g:/t";
        let found: Vec<_> = users(file).map(|user| (user.name, user.uid, user.gid, user.home)).collect();
        let expected: [(&[u8], u32, u32, &[u8]); 3] =
            [(b"root", 0, 0, b"/root"), (b"short", 7, 8, b""), (b"tail", 9, 9, b"/t")];
        assert_eq!(found, expected);
    }

    #[test]
    fn members_match_whole_names() {
        let group = groups(b"g:x:5:ann,bob").next().unwrap();
        assert!(group.has(b"bob") && group.has(b"ann"));
        assert!(!group.has(b"an") && !group.has(b"ann,bob") && !group.has(b""));
    }

    #[test]
    fn ids_are_bounded_decimals() {
        assert_eq!(id(b"0"), Some(0));
        assert_eq!(id(b"2147483647"), Some(2_147_483_647));
        for bad in ["", "-1", "+1", " 1", "0x1", "2147483648", "4294967296", "99999999999999999999"] {
            assert_eq!(id(bad.as_bytes()), None, "{bad}");
        }
    }

    /// Bytes that look like such files more often than chance has it.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b":".to_vec()), 2 => Just(b"\n".to_vec()), 1 => Just(b"\0".to_vec()), 1 => Just(b",".to_vec()),
            2 => any::<u64>().prop_map(|n| n.to_string().into_bytes()),
            2 => prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn hostile_files_give_only_usable_entries(file in hostile()) {
            for user in users(&file) {
                prop_assert!(user.uid <= i32::MAX as u32 && user.gid <= i32::MAX as u32);
                for text in [user.name, user.home] {
                    prop_assert!(!text.iter().any(|b| b":\n\0".contains(b)));
                }
                prop_assert!(!user.name.is_empty());
            }
            for group in groups(&file) {
                prop_assert!(group.gid <= i32::MAX as u32 && !group.has(b"a,b"));
            }
        }

        #[test]
        fn a_good_line_is_found_among_hostile_ones(before in hostile(), after in hostile()) {
            let file = [&before[..], b"\nTheUser:x:1234:77::/h\n", &after[..]].concat();
            prop_assert!(users(&file).any(|u| (u.name, u.uid, u.gid, u.home) == (&b"TheUser"[..], 1234, 77, &b"/h"[..])));
        }
    }
}
