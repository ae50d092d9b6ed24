//! Measures lastecho against other echo servers; benches/NOTES.md says how.

mod kit;
mod load;
mod measure;
mod network;
mod options;
mod pattern;
mod plot;
mod proc;
mod results;
mod run;
mod running;
mod scenario;
mod servers;
mod stats;
mod table;
mod window;

use anyhow::{Context, Result};
use clap::Parser;
use options::Options;
use run::{Entry, Plan};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lastecho-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it all and tells; false if lastecho did not keep what it promises.
fn bench(options: &Options) -> Result<bool> {
    if !options.here {
        match network::measure_apart()? {}
    }
    allow_many_descriptors()?;
    let plan = Plan::new(options)?;
    let file = results_file(options)?;
    let entries = plan.run();
    let rows = results::rows(&plan.scenarios, &entries);
    let mut text = format!("congestion control: {}\n", network::congestion_control());
    text += &table::text(&rows);
    list(&mut text, "left out", &plan.omitted);
    list(&mut text, "trouble", &results::troubles(&entries));
    io::stdout().write_all(text.as_bytes())?;
    keep(options, &file, &entries, &rows)?;
    Ok(results::is_sound(&entries))
}

fn list(text: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{title}:\n  {}", lines.join("\n  "));
    }
}

/// Where the results will go, tried before anything is measured.
fn results_file(options: &Options) -> Result<PathBuf> {
    let directory = &options.results;
    fs::create_dir_all(directory)
        .and_then(|()| tempfile::tempfile_in(directory))
        .with_context(|| directory.display().to_string())?;
    Ok(directory.join(options.name()))
}

/// Writes the CSV and the plot.
fn keep(options: &Options, file: &Path, entries: &[Entry], rows: &[results::Row]) -> Result<()> {
    fs::write(file.with_extension("csv"), table::csv(entries))?;
    let svg = if options.is_scaling() {
        plot::scaling(rows)
    } else {
        plot::bars(rows)
    };
    fs::write(file.with_extension("svg"), svg?)?;
    Ok(())
}

/// As many as the hard limit allows, for us and the servers that inherit it.
fn allow_many_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raise the limit of descriptors")
}
