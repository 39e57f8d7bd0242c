//! `features`: what hv oci can do, for engines (features.md of the specification).

use hv_container::oci;
use serde_json::json;

use super::{Result, state};

/// Prints it.
pub fn run() -> Result<u8> {
    let flags: Vec<&str> = oci::SECCOMP_FLAGS.iter().map(|(name, _)| *name).collect();
    state::print(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": oci::MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": oci::capability_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": oci::SECCOMP_ACTIONS,
                "operators": oci::SECCOMP_OPERATORS,
                "archs": oci::SECCOMP_ARCHITECTURES,
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": {"enabled": std::path::Path::new("/sys/module/apparmor").exists()},
            "selinux": {"enabled": std::path::Path::new("/sys/fs/selinux/status").exists()},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {"org.opencontainers.runtime-spec": super::SPEC_VERSION},
        "potentiallyUnsafeConfigAnnotations": [],
    }))
}
