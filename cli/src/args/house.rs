//! What an agent keeps on its disk, and for how long.

use clap::Args;

/// Housekeeping of an agent.
#[derive(Clone, Debug, Args)]
pub struct HouseArgs {
    /// Take no new tasks while less of the disk is free, in MiB; what runs goes on. 0 for no floor
    #[arg(long, default_value_t = 1024, value_name = "MIB", help_heading = "Housekeeping",
          value_parser = clap::value_parser!(u64).range(0..=1 << 30))]
    pub disk_floor_mib: u64,

    /// Remove images that tasks have used, when so many percent of Docker's disk are used
    #[arg(long, default_value_t = 85, value_name = "PERCENT", help_heading = "Housekeeping",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high: u8,

    /// And then until no more than so many are
    #[arg(long, default_value_t = 75, value_name = "PERCENT", help_heading = "Housekeeping",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low: u8,

    /// Never remove images that match this pattern, in which * stands for any text; may be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "Housekeeping")]
    pub keep_image: Vec<String>,

    /// Keep the volumes of a run that failed for so long, so that it can be run again from there
    #[arg(long, default_value_t = 168, value_name = "HOURS", help_heading = "Housekeeping",
          value_parser = clap::value_parser!(u64).range(1..=876_000))]
    pub keep_claims_hours: u64,

    /// Look for what nobody needs any more every so many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", help_heading = "Housekeeping",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub housekeeping_seconds: u64,
}
