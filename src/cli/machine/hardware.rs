//! What a microVM's machine is built on.

use std::path::PathBuf;

use clap::Args;

use super::MachineOption;

/// Processors and pages.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Hardware")]
pub struct HardwareArgs {
    /// Keep each vCPU on a processor of the host: 0-3 or 0,2; one for each
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    pub cpu_pin: Option<CpuList>,
    /// The processor that the guest sees: host, portable (the same on every host of a vendor), or a JSON file
    #[arg(long, value_name = "WORD|FILE", default_value = "host", hide_default_value = false)]
    pub cpu_template: CpuTemplateArg,
    /// Take guest memory from the host's pool of huge pages, of 2M or 1G
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "2M")]
    pub hugepages: Option<HugePageArg>,
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[
    MachineOption {
        id: "cpu_pin",
        typed: |machine| machine.hardware.cpu_pin.is_some(),
        why: "a container has no vCPUs; `taskset -c LIST hv ctr ...` keeps all of it on these processors",
    },
    MachineOption {
        id: "cpu_template",
        typed: |machine| machine.hardware.cpu_template != CpuTemplateArg::Host,
        why: "a container runs on the host's processor as it is",
    },
    MachineOption {
        id: "hugepages",
        typed: |machine| machine.hardware.hugepages.is_some(),
        why: "a container has no guest memory: its processes take huge pages themselves",
    },
];

/// Processors of the host, in the order of the vCPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Which CPU template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CpuTemplateArg {
    /// `host`.
    #[default]
    Host,
    /// `portable`.
    Portable,
    /// A file.
    File(PathBuf),
}

impl From<std::ffi::OsString> for CpuTemplateArg {
    fn from(word: std::ffi::OsString) -> CpuTemplateArg {
        match word.to_str() {
            Some("host") => CpuTemplateArg::Host,
            Some("portable") => CpuTemplateArg::Portable,
            _ => CpuTemplateArg::File(word.into()),
        }
    }
}

/// The size of a huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HugePageArg {
    /// 2 MiB
    #[value(name = "2M")]
    Size2M,
    /// 1 GiB
    #[value(name = "1G")]
    Size1G,
}

/// Reads `0-3,8`; no more processors than a microVM can have.
fn parse_list(text: &str) -> Result<CpuList, String> {
    const MOST: usize = 64;
    let wrong = || format!("`{text}` is no list of processors; write for example 0-3 or 0,2");
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<usize>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        if last - first >= MOST - cpus.len() {
            return Err(format!("`{text}` names more than {MOST} processors"));
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list = |text| parse_list(text).map(|CpuList(cpus)| cpus);
        assert_eq!(list("0").unwrap(), [0]);
        assert_eq!(list("0-3").unwrap(), [0, 1, 2, 3]);
        assert_eq!(list("5,0-1,5").unwrap(), [5, 0, 1, 5]);
        assert_eq!(list("0-63").unwrap().len(), 64);
        for wrong in
            ["", "a", "1-", "-1", "3-1", "1,,2", "+1", "1 2", "0-64", "0-18446744073709551615", "0-63,1"]
        {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn templates_by_word_or_file() {
        assert_eq!(CpuTemplateArg::from(std::ffi::OsString::from("portable")), CpuTemplateArg::Portable);
        let file = CpuTemplateArg::from(std::ffi::OsString::from("./portable"));
        assert_eq!(file, CpuTemplateArg::File("./portable".into()));
    }
}
