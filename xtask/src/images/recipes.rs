//! What each stand-in image consists of. A stand-in answers as the image of the same name does where Tekton's examples and
//! our tests can tell: its shells, its entrypoint, its user, its tools. It is not that image.

use super::rootfs::Root;
use crate::command::Failure;

/// How the small tools of an image come about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// busybox applets; `sh` is ash.
    Busybox,
    /// The distribution's own; `sh` is dash.
    Distribution,
}

/// One image.
pub struct Recipe {
    /// Its name, without registry and tag.
    pub name: &'static str,
    /// Packages; what they need comes with them.
    pub packages: &'static [&'static str],
    /// Packages to leave out although others name them.
    pub omit: &'static [&'static str],
    pub tools: Tools,
    /// Dockerfile instructions for its configuration.
    pub config: &'static [&'static str],
    /// What else is to be done to its root directory.
    pub finish: fn(&Root) -> Result<(), Failure>,
}

const PATH: &str = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What busybox stands for, in images whose tools are busybox.
const REPLACED_BY_BUSYBOX: &[&str] = &[
    "base-files",
    "debianutils",
    "libdb5.3",
    "libgdbm-compat4",
    "libgdbm6",
    "libncursesw6",
    "libperl5.36",
    "libproc2-0",
    "mawk",
    "perl",
    "perl-base",
    "perl-modules-5.36",
    "procps",
    "sysvinit-utils",
    "tar",
];
const DISTRIBUTION_TOOLS: &[&str] = &[
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "procps",
    "sed",
    "tar",
    "util-linux",
];

/// All of them.
pub const RECIPES: [Recipe; 9] = [
    Recipe {
        name: "busybox",
        packages: &[],
        omit: &[],
        tools: Tools::Busybox,
        config: &[PATH, "CMD [\"sh\"]"],
        finish: |_| Ok(()),
    },
    Recipe {
        name: "alpine",
        packages: &[],
        omit: &[],
        tools: Tools::Busybox,
        config: &[PATH, "CMD [\"/bin/sh\"]"],
        finish: |_| Ok(()),
    },
    Recipe {
        name: "bash",
        packages: &["bash"],
        omit: REPLACED_BY_BUSYBOX,
        tools: Tools::Busybox,
        config: &[PATH, "ENTRYPOINT [\"docker-entrypoint.sh\"]", "CMD [\"bash\"]"],
        // As in the image of that name: bash is not in /bin, and sh is busybox's.
        finish: |root| {
            root.rename("usr/bin/bash", "usr/local/bin/bash")?;
            root.remove("usr/bin/rbash")?;
            root.write(
                "usr/local/bin/docker-entrypoint.sh",
                0o755,
                include_str!("files/bash-entrypoint.sh"),
            )
        },
    },
    Recipe {
        name: "ubuntu",
        packages: &[],
        omit: &[],
        tools: Tools::Distribution,
        config: &[PATH, "CMD [\"/bin/bash\"]"],
        finish: |_| Ok(()),
    },
    Recipe {
        name: "python",
        packages: &["python3"],
        omit: &[],
        tools: Tools::Distribution,
        config: &[PATH, "CMD [\"python3\"]"],
        finish: |root| {
            root.link("/usr/bin/python3", "usr/local/bin/python3")?;
            root.link("/usr/bin/python3", "usr/local/bin/python")
        },
    },
    Recipe {
        name: "node",
        packages: &["nodejs"],
        omit: REPLACED_BY_BUSYBOX,
        tools: Tools::Busybox,
        config: &[PATH, "ENTRYPOINT [\"docker-entrypoint.sh\"]", "CMD [\"node\"]"],
        finish: |root| {
            root.write(
                "usr/local/bin/docker-entrypoint.sh",
                0o755,
                include_str!("files/node-entrypoint.sh"),
            )
        },
    },
    Recipe {
        name: "perl",
        packages: &["perl"],
        omit: &[],
        tools: Tools::Distribution,
        config: &[PATH, "WORKDIR /usr/src/app", "CMD [\"perl\", \"-de0\"]"],
        finish: |root| root.directory("usr/src/app", 0o755),
    },
    Recipe {
        name: "alpine/git",
        packages: &["git", "openssh-client", "openssh-server"],
        omit: REPLACED_BY_BUSYBOX,
        tools: Tools::Busybox,
        config: &[PATH, "WORKDIR /git", "ENTRYPOINT [\"git\"]", "CMD [\"--help\"]"],
        finish: git,
    },
    Recipe {
        name: "alpine/git-nonroot",
        packages: &["git", "openssh-client", "openssh-server"],
        omit: REPLACED_BY_BUSYBOX,
        tools: Tools::Busybox,
        config: &[
            PATH,
            "ENV HOME=/home/nonroot",
            "USER 1000",
            "WORKDIR /home/nonroot",
            "ENTRYPOINT [\"git\"]",
            "CMD [\"--help\"]",
        ],
        finish: git,
    },
];

fn git(root: &Root) -> Result<(), Failure> {
    root.directory("git", 0o755)?;
    root.directory("run/sshd", 0o755)?;
    root.write("etc/ssh/sshd_config", 0o644, include_str!("files/sshd_config"))
}

/// The packages of a recipe.
pub fn packages(recipe: &Recipe) -> Vec<&'static str> {
    let tools = match recipe.tools {
        Tools::Busybox => &["busybox-static"][..],
        Tools::Distribution => DISTRIBUTION_TOOLS,
    };
    [tools, recipe.packages].concat()
}
