//! The parsers against second readings of the same bytes: `check`, `std`, and the `procfs` crate, on what we make up, on
//! the seeds of the fuzz targets, and on every process that runs here now.

mod cgroup;
mod children;
mod cn_proc;
mod dirent;
mod keyed;
mod kinfo_proc;
mod live;
mod numbers;
mod proc_stat;
mod seeds;
mod timens_offsets;
pub(crate) mod token;
mod unique_info;
mod uuid;
