//! Names for what runs: from a cgroup's path or a command's name to namespace, pod and container.
//!
//! | cgroup | namespace | pod | container |
//! |---|---|---|---|
//! | `/system.slice/nginx.service` | `system` | `nginx` | `nginx` |
//! | `/system.slice/nginx.service/worker` | `system` | `nginx` | `worker` |
//! | `/init.scope` | `system` | `init` | `init` |
//! | `/user.slice/user-1000.slice/session-3.scope` | `user-1000` | `session-3` | `session-3` |
//! | `/user.slice/user-1000.slice/user@1000.service/app.slice/a.service` | `user-1000` | `a` | `a` |
//! | `/system.slice/docker-<id>.scope`, `/docker/<id>` | `docker` | first 12 of id | same |
//! | `/machine.slice/libpod-<id>.scope` | `podman` | first 12 of id | same |
//! | `/kubepods.slice/.../kubepods-pod<uid>.slice/cri-containerd-<id>.scope` | `kubepods` | uid | first 12 of id |
//! | `/lxc.payload.web/...` | `lxc` | `web` | last part |
//! | `/a/b/c` | `a` | `b` | `c` |
//! | none, command `sshd` | `host` | `sshd` | `sshd` |

/// Where a container appears.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Names {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
}

impl Names {
    fn new(namespace: &str, pod: &str, container: &str) -> Self {
        Self { namespace: dns_name(namespace), pod: dns_name(pod), container: dns_name(container) }
    }

    /// The names of processes without a cgroup of their own.
    pub(crate) fn of_command(command: &str) -> Self {
        Self::new("host", command, command)
    }

    /// The names of a cgroup other than the root.
    pub(crate) fn of_cgroup(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let Some(&last) = parts.last() else { return Self::of_command("root") };
        if let Some((runtime, id)) = runtime_container(&parts) {
            let id = id.get(..12).unwrap_or(id);
            return match parts.iter().find_map(|part| kube_pod(part)) {
                Some(uid) => Self::new("kubepods", &uid, id),
                None => Self::new(runtime, id, id),
            };
        }
        if let Some(name) = parts.iter().find_map(|part| part.strip_prefix("lxc.payload.")) {
            return Self::new("lxc", name, if parts.len() > 1 { last } else { name });
        }
        // The innermost unit is the pod; what lies below it, a container of it.
        let unit = parts.iter().rposition(|part| part.ends_with(".service") || part.ends_with(".scope"));
        let Some(unit) = unit else {
            return match parts.as_slice() {
                [only] => Self::new("host", strip_suffix(only), strip_suffix(only)),
                [first, second, ..] => {
                    Self::new(strip_suffix(first), strip_suffix(second), strip_suffix(last))
                }
                [] => Self::of_command("root"),
            };
        };
        let slice = parts[..unit].iter().find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice"));
        let namespace = match (slice, parts.first()) {
            (Some(user), _) => format!("user-{user}"),
            (None, Some(first)) if unit > 0 => strip_suffix(first).to_owned(),
            _ => "system".to_owned(),
        };
        Self::new(&namespace, strip_suffix(parts[unit]), strip_suffix(last))
    }
}

/// The runtime and the id of a container, if a part of the path names one.
fn runtime_container<'a>(parts: &[&'a str]) -> Option<(&'static str, &'a str)> {
    const SCOPES: [(&str, &str); 5] = [
        ("docker-", "docker"),
        ("libpod-", "podman"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "crio"),
    ];
    let id =
        |text: &'a str| (text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text);
    for (at, &part) in parts.iter().enumerate() {
        let bare = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, runtime) in SCOPES {
            if let Some(id) = bare.strip_prefix(prefix).and_then(id) {
                return Some((runtime, id));
            }
        }
        if at > 0
            && let Some(id) = id(bare)
        {
            let parent = parts[at - 1];
            let known = ["docker", "podman", "containerd", "crio"].into_iter().find(|known| *known == parent);
            if known.is_some() || kube_pod(parent).is_some() {
                return Some((known.unwrap_or("containerd"), id));
            }
        }
    }
    None
}

/// The uid in `kubepods-burstable-pod<uid>.slice` or `pod<uid>`.
fn kube_pod(part: &str) -> Option<String> {
    let bare = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match bare.strip_prefix("kubepods") {
        Some(rest) => rest.rsplit_once("-pod")?.1,
        None => bare.strip_prefix("pod")?,
    };
    let good = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'));
    good.then(|| uid.replace('_', "-"))
}

fn strip_suffix(unit: &str) -> &str {
    [".service", ".scope", ".slice", ".socket", ".mount"]
        .into_iter()
        .find_map(|suffix| unit.strip_suffix(suffix))
        .unwrap_or(unit)
}

/// Lower case letters, digits, `-` and `.`, as Kubernetes names are. systemd's `\x2d` is undone first.
fn dns_name(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\\x2d", "-").chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '-' => out.push(c),
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            _ => out.push('-'),
        }
    }
    let trimmed = out.trim_matches(['-', '.']);
    if trimmed.is_empty() { "unnamed".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_get_the_names_of_their_units() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let uid = "11111111-2222-3333-4444-555555555555";
        let (docker, cri) =
            (format!("/system.slice/docker-{id}.scope"), format!("cri-containerd-{id}.scope"));
        let kube = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/{cri}",
            uid.replace('-', "_")
        );
        let cgroupfs = format!("/kubepods/besteffort/pod{uid}/{id}");
        for (path, names) in [
            ("/system.slice/nginx.service", ["system", "nginx", "nginx"]),
            ("/system.slice/nginx.service/Worker_1", ["system", "nginx", "worker-1"]),
            ("/init.scope", ["system", "init", "init"]),
            ("/system.slice/system-getty.slice/getty@tty1.service", ["system", "getty-tty1", "getty-tty1"]),
            ("/system.slice/a\\x2db.service", ["system", "a-b", "a-b"]),
            ("/user.slice/user-1000.slice/session-3.scope", ["user-1000", "session-3", "session-3"]),
            ("/user.slice/user-0.slice/user@0.service/app.slice/a.service", ["user-0", "a", "a"]),
            ("/user.slice/user-0.slice/user@0.service/init.scope", ["user-0", "init", "init"]),
            ("/lxc.payload.web", ["lxc", "web", "web"]),
            ("/jobs/build/7", ["jobs", "build", "7"]),
            ("/jobs", ["host", "jobs", "jobs"]),
            (docker.as_str(), ["docker", "0123456789ab", "0123456789ab"]),
            (kube.as_str(), ["kubepods", uid, "0123456789ab"]),
            (cgroupfs.as_str(), ["kubepods", uid, "0123456789ab"]),
        ] {
            let got = Names::of_cgroup(path);
            assert_eq!(
                [&got.namespace, &got.pod, &got.container],
                names.map(str::to_owned).each_ref(),
                "{path}"
            );
        }
    }

    #[test]
    fn commands_are_grouped_in_the_namespace_host() {
        assert_eq!(Names::of_command("process_api"), Names::new("host", "process-api", "process-api"));
        assert_eq!(Names::of_command("(sd-pam)").pod, "sd-pam");
        assert_eq!(Names::of_command("___").pod, "unnamed");
    }
}
