//! The commands of trust: tokens and certificates.

use clap::{Args, Subcommand};

use super::Output;

/// Show who changed what in a cluster, and who was refused
///
/// The newest entries of all nodes' audit logs, in the order of time. Only for admins. A node that does
/// not answer is named.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon audit --since 24h --refused\n  \
    tenon audit --who ci --what Submit -o json")]
pub struct AuditArgs {
    /// Only entries whose caller's name holds this
    #[arg(long, value_name = "TEXT")]
    pub who: Option<String>,

    /// Only entries whose method, or what it was about, holds this
    #[arg(long, value_name = "TEXT")]
    pub what: Option<String>,

    /// Only entries since then: a time (RFC 3339), or how long ago, such as 90m or 24h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only entries before then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Only what was refused or failed
    #[arg(long)]
    pub refused: bool,

    /// At most so many, the newest
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Make, list and revoke tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon tokens create ci --role submitter --namespace web\n  \
    tenon tokens join\n  \
    tenon tokens revoke 3f2a90c1d4e5")]
pub struct TokensArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokensCommand,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    Create(TokensCreateArgs),
    Join(TokensJoinArgs),
    /// Show all tokens, without their secrets
    #[command(after_help = "Example:\n  tenon tokens list -o json")]
    List {
        /// How to print the answer
        #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
        output: Output,
    },
    /// Make a token good no more, at once
    #[command(after_help = "Example:\n  tenon tokens revoke 3f2a90c1d4e5")]
    Revoke {
        /// Its id, the part behind the first underscore
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Make an API token; prints it, this once
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon tokens create ci --role submitter --namespace web --hours 720")]
pub struct TokensCreateArgs {
    /// Whose it is, for lists and the audit log
    #[arg(value_name = "NAME")]
    pub name: String,

    /// viewer, submitter, operator or admin; each may do what those before it may
    #[arg(long, default_value = "viewer", value_name = "ROLE")]
    pub role: String,

    /// Where it is good; may be repeated [default: everywhere]
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,

    /// How long it is good [default: until it is revoked]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=876_000))]
    pub hours: Option<u64>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Make a token with which one machine may join the cluster, once; prints it, this once
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenon tokens join\n  \
    tenon tokens join --node\n  tenon tokens join --agent gpu1 --minutes 10")]
pub struct TokensJoinArgs {
    /// For a coordinator. Whoever uses it gets the key of the cluster's Secrets
    #[arg(long, conflicts_with = "agent")]
    pub node: bool,

    /// Only for the agent with this name, which then takes the place of one that has it already
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,

    /// How long it is good
    #[arg(long, default_value_t = 60, value_name = "MINUTES",
          value_parser = clap::value_parser!(u64).range(1..=43_200))]
    pub minutes: u64,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// List the certificates of agents, and revoke them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon certificates revoke gpu1")]
pub struct CertificatesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CertificatesCommand,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertificatesCommand {
    /// Show the agents that have certificates
    #[command(after_help = "Example:\n  tenon certificates list -o json")]
    List {
        /// How to print the answer
        #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
        output: Output,
    },
    /// Shut an agent out: its certificates are good no more, and its session ends
    #[command(after_help = "Example:\n  tenon certificates revoke gpu1")]
    Revoke {
        /// Its name
        #[arg(value_name = "AGENT")]
        agent: String,
    },
}
