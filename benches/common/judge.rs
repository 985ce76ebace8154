//! Measures what we do beside what the others do: by criterion, or in pairs for the table of ratios.
//!
//! `cargo bench` gives criterion's estimates of each contestant, one after the other. A ratio of two such estimates
//! carries whatever the machine did between them. So `scripts/bench-table` sets `PIDIGREE_BENCH_PAIRED` to the
//! milliseconds that each pair may take, and then ours and one other take turns of a fraction of a millisecond: ours,
//! other, other, ours. Each such round gives one ratio, in which a steady drift cancels out; the median of all
//! rounds is not moved by the few in which something else ran. One line of JSON for each pair goes to stdout.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};

/// Does the work so many times and says how long it took, preparation aside.
pub(crate) type Work<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Work without preparation.
pub(crate) fn each<'a, T>(mut work: impl FnMut() -> T + 'a) -> Work<'a> {
    Box::new(move |times| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        start.elapsed()
    })
}

/// One line of the table: what we do, and the others that do the same.
pub(crate) struct Contest<'a> {
    table: &'static str,
    case: String,
    unit: u64,
    patience: u32,
    ours: Work<'a>,
    others: Vec<(&'static str, Work<'a>)>,
}

impl<'a> Contest<'a> {
    /// `table` is the number of the benchmark, `case` what tells its lines apart.
    pub(crate) fn new(table: &'static str, case: impl Into<String>, ours: Work<'a>) -> Contest<'a> {
        Contest { table, case: case.into(), unit: 1, patience: 1, ours, others: Vec::new() }
    }

    pub(crate) fn against(mut self, name: &'static str, work: Work<'a>) -> Contest<'a> {
        self.others.push((name, work));
        self
    }

    /// How many things of the kind that is reported one piece of work does.
    pub(crate) fn of(mut self, unit: u64) -> Contest<'a> {
        self.unit = unit;
        self
    }

    /// How many times as long as others this may take: few rounds fit where the work, or preparing it, is long.
    pub(crate) fn patience(mut self, patience: u32) -> Contest<'a> {
        self.patience = patience;
        self
    }
}

/// How to measure.
pub(crate) enum Judge {
    Criterion(Box<Criterion>),
    Paired { time: Duration },
}

impl Judge {
    pub(crate) fn from_env() -> Judge {
        match std::env::var("PIDIGREE_BENCH_PAIRED") {
            Ok(milliseconds) => Judge::Paired {
                time: Duration::from_millis(milliseconds.parse().expect("milliseconds for each pair")),
            },
            Err(_) => {
                let criterion = Criterion::default()
                    .sample_size(20)
                    .warm_up_time(Duration::from_millis(500))
                    .measurement_time(Duration::from_secs(2));
                Judge::Criterion(Box::new(criterion.configure_from_args()))
            }
        }
    }

    pub(crate) fn hold(&mut self, contest: Contest<'_>) {
        let Contest { table, case, unit, patience, mut ours, others } = contest;
        match self {
            Judge::Criterion(criterion) => {
                let mut group = criterion.benchmark_group(format!("{table} {case}"));
                group.sampling_mode(SamplingMode::Flat);
                group.bench_function("ours", |bencher| bencher.iter_custom(&mut ours));
                for (name, mut work) in others {
                    group.bench_function(name, |bencher| bencher.iter_custom(&mut work));
                }
                group.finish();
            }
            Judge::Paired { time } => {
                for (name, mut work) in others {
                    Pair::measure(*time * patience, &mut ours, &mut work).report(table, &case, name, unit);
                }
            }
        }
    }

    /// For two states of the whole machine, which cannot take turns of a fraction of a millisecond: `enter` arranges
    /// one of them (the second if `true`) and gives back what keeps it. The first is measured again after the second.
    pub(crate) fn compare_states<S>(
        &mut self,
        (table, case): (&'static str, &str),
        names: [&'static str; 2],
        mut enter: impl FnMut(bool) -> S,
        mut work: Work<'_>,
    ) {
        match self {
            Judge::Criterion(criterion) => {
                let mut group = criterion.benchmark_group(format!("{table} {case}"));
                group.sampling_mode(SamplingMode::Flat);
                for (name, second) in names.into_iter().zip([false, true]) {
                    let _state = enter(second);
                    group.bench_function(name, |bencher| bencher.iter_custom(&mut work));
                }
                group.finish();
            }
            Judge::Paired { time } => {
                let mut median_in = |second| {
                    let _state = enter(second);
                    median_time(*time / 5, &mut work)
                };
                let mut rounds = Vec::new();
                let mut before = median_in(false);
                for _ in 0..3 {
                    let second = median_in(true);
                    let after = median_in(false);
                    rounds.push(Round { ours: second, other: (before + after) / 2.0 });
                    before = after;
                }
                Pair { rounds }.report(table, case, names[0], 1);
            }
        }
    }
}

/// Nanoseconds for one piece of work, ours and the other's.
#[derive(Clone, Copy)]
struct Round {
    ours: f64,
    other: f64,
}

struct Pair {
    rounds: Vec<Round>,
}

/// What one turn should take: far less than the scheduler's slice, far more than reading the clock.
const TURN: Duration = Duration::from_micros(250);

/// With fewer rounds there is no median to speak of.
const FEWEST: usize = 7;

impl Pair {
    fn measure(time: Duration, ours: &mut Work<'_>, other: &mut Work<'_>) -> Pair {
        // Turns of the same length for both, so that disturbances hit both alike.
        let (our_times, other_times) = (times_in_a_turn(ours), times_in_a_turn(other));
        let start = Instant::now();
        let mut rounds = Vec::new();
        while rounds.len() < FEWEST || start.elapsed() < time {
            let first = ours(our_times);
            let turns = other(other_times) + other(other_times);
            let last = ours(our_times);
            rounds.push(Round {
                ours: (first + last).as_nanos() as f64 / (2 * our_times) as f64,
                other: turns.as_nanos() as f64 / (2 * other_times) as f64,
            });
        }
        Pair { rounds }
    }

    /// The ratio with its 95 % interval: of the median, by rank, so nothing is assumed about how times are distributed.
    fn report(&self, table: &str, case: &str, other: &str, unit: u64) {
        let ratios = sorted(self.rounds.iter().map(|round| round.ours / round.other));
        let count = ratios.len() as f64;
        let reach = 0.98 * count.sqrt();
        let low = ratios[(count / 2.0 - reach).floor().max(0.0) as usize];
        let high = ratios[((count / 2.0 + reach).ceil() as usize).min(ratios.len() - 1)];
        let unit = unit as f64;
        let ours = median(self.rounds.iter().map(|round| round.ours)) / unit;
        let theirs = median(self.rounds.iter().map(|round| round.other)) / unit;
        println!(
            "{{\"table\":\"{table}\",\"case\":\"{case}\",\"other\":\"{other}\",\"ours_ns\":{ours:.1},\
             \"other_ns\":{theirs:.1},\"ratio\":{:.4},\"low\":{low:.4},\"high\":{high:.4},\"rounds\":{}}}",
            median(ratios.iter().copied()),
            ratios.len(),
        );
    }
}

fn times_in_a_turn(work: &mut Work<'_>) -> u64 {
    let mut times = 1;
    loop {
        let took = work(times);
        if took * 2 >= TURN {
            return (times as f64 * TURN.as_secs_f64() / took.as_secs_f64()).round().max(1.0) as u64;
        }
        times *= 2;
    }
}

fn median_time(time: Duration, work: &mut Work<'_>) -> f64 {
    let times = times_in_a_turn(work);
    let start = Instant::now();
    let mut turns = Vec::new();
    while turns.len() < FEWEST || start.elapsed() < time {
        turns.push(work(times).as_nanos() as f64 / times as f64);
    }
    median(turns)
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = sorted(values);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}
