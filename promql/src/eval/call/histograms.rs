//! Functions of histograms, classic and native.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use model::{FloatHistogram, Labels, Value};

use super::super::column::{Column, Point};
use super::super::grid::Grid;
use super::super::source::{ColumnMap, Series, goes_with_name, join_equal};
use super::super::{Evaluator, text};
use super::not_supported;
use crate::annotations::{Site, for_metric};
use crate::ast::{Call, Expr};
use crate::engine::QueryError;
use crate::functions::classic::{self, Bucket, Mended};
use crate::functions::{Function, date, quantile as quantiles};
use crate::histogram::{self, Quantile};

const LE: &str = "le";

/// One histogram, in one of its two forms or, by mistake, in both.
struct Histogram {
    labels: Labels,
    drop_name: bool,
    /// Upper bounds, and the series that count them.
    buckets: Vec<(f64, usize)>,
    native: Option<usize>,
}

/// What is asked of a histogram.
enum Question {
    Quantile(Vec<f64>),
    Fraction(Vec<f64>, Vec<f64>),
}

impl Evaluator<'_> {
    /// Functions of the histograms in one series.
    pub(super) fn histogram_map<'s>(function: Function) -> Result<ColumnMap<'s>, QueryError> {
        let f: fn(&FloatHistogram) -> f64 = match function {
            Function::HistogramCount => |h| h.count,
            Function::HistogramSum => |h| h.sum,
            Function::HistogramAvg => histogram::average,
            Function::HistogramStdvar => histogram::variance,
            Function::HistogramStddev => |h| histogram::variance(h).sqrt(),
            other => return Err(not_supported(other)),
        };
        Ok(Box::new(move |column| {
            column.map(|_, point| match point {
                Point::Float(_) => None,
                Point::Histogram(h) => Some(Value::Float(f(h))),
            });
        }))
    }

    /// `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.
    pub(super) fn histogram_call(
        &self,
        call: &Call,
        expr: &Expr,
        grid: Grid,
    ) -> Result<Vec<Series>, QueryError> {
        let args = &call.args;
        match call.function {
            Function::HistogramQuantile => {
                let q = self.quantile_param(&args[0], Site::new(expr, &args[0]), grid)?;
                self.histograms((&args[1], Site::new(expr, &args[1])), &[(None, Question::Quantile(q))], grid)
            }
            Function::HistogramFraction => {
                let (lower, upper) = (self.scalar(&args[0], grid)?, self.scalar(&args[1], grid)?);
                self.histograms(
                    (&args[2], Site::new(expr, &args[2])),
                    &[(None, Question::Fraction(lower, upper))],
                    grid,
                )
            }
            _ => {
                let label = text(&args[1])?;
                let mut questions = Vec::new();
                for arg in &args[2..] {
                    let q = self.quantile_param(arg, Site::new(expr, arg), grid)?;
                    let shown = q.first().map(|q| model::float::format_open_metrics(*q)).unwrap_or_default();
                    questions.push((Some((label.to_owned(), shown)), Question::Quantile(q)));
                }
                self.histograms((&args[0], Site::new(expr, &args[0])), &questions, grid)
            }
        }
    }

    fn quantile_param(&self, arg: &Expr, at: Site, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let q = self.scalar(arg, grid)?;
        for bad in q.iter().filter(|q| quantiles::is_invalid(**q)) {
            self.annotations.warn(at, &quantiles::invalid(*bad));
        }
        Ok(q)
    }

    fn histograms(
        &self,
        (arg, site): (&Expr, Site),
        questions: &[(Option<(String, String)>, Question)],
        grid: Grid,
    ) -> Result<Vec<Series>, QueryError> {
        let series = self.taken(arg, grid)?;
        let histograms = self.grouped(&series, site)?;
        let mut out = Vec::new();
        // By metric name.
        let mut mended: BTreeMap<String, Mended> = BTreeMap::new();
        for (label, question) in questions {
            for histogram in &histograms {
                let mut column = Column::new(grid.count);
                for step in self.account.watched(0..grid.count) {
                    let step = step?;
                    let mut now = Mended::default();
                    let at = (step, site);
                    if let Some(answer) = self.answer(histogram, &series, question, at, &mut now) {
                        column.set_float(step, answer);
                    }
                    if now.count > 0 {
                        let time = grid.time(step);
                        (now.first, now.last) = (time, time);
                        let name = self.shown_name(&histogram.labels).to_owned();
                        mended.entry(name).and_modify(|all| all.join(&now)).or_insert(now);
                    }
                }
                if !column.is_empty() {
                    out.push(self.named(histogram, label.as_ref(), column));
                }
            }
        }
        for (name, mended) in mended {
            self.annotations.info(site, &forced(&mended, &name));
        }
        join_equal(out, self.account)
    }

    /// The name of a metric in remarks: it has lost it already, unless names are dropped at the end.
    fn shown_name<'l>(&self, labels: &'l Labels) -> &'l str {
        labels.metric_name().filter(|_| self.features.delayed_name_removal).unwrap_or("")
    }

    /// The result of one histogram under its labels.
    fn named(&self, histogram: &Histogram, label: Option<&(String, String)>, column: Column) -> Series {
        let delayed = self.features.delayed_name_removal;
        let mut labels = histogram.labels.clone();
        if !delayed {
            labels = labels.filtered(|name| !goes_with_name(name));
        }
        if let Some((name, value)) = label {
            let mut builder = labels.to_builder();
            builder.set(name, value);
            labels = builder.build();
        }
        Series { labels, drop_name: delayed || histogram.drop_name, column }
    }

    /// Sorts series into histograms: by all labels but `le`, the name included.
    fn grouped(&self, series: &[Series], at: Site) -> Result<Vec<Histogram>, QueryError> {
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<Histogram> = Vec::new();
        for item in self.account.watched(series.iter().enumerate()) {
            let (position, item) = item?;
            let has_floats = item.column.floats().iter().any(|cell| !super::is_absent(*cell));
            let le = item.labels.get(LE).unwrap_or("");
            let upper = model::float::parse(le);
            let mut place = |out: &mut Vec<Histogram>, labels: Labels| -> usize {
                *index.entry(labels.clone()).or_insert_with(|| {
                    let drop_name = item.drop_name;
                    out.push(Histogram { labels, drop_name, buckets: Vec::new(), native: None });
                    out.len() - 1
                })
            };
            if !item.column.histograms().is_empty() {
                let at = place(&mut out, item.labels.clone());
                out[at].native = Some(position);
            }
            match upper {
                _ if !has_floats => {}
                Some(upper) => {
                    let at = place(&mut out, item.labels.filtered(|name| name != LE));
                    out[at].buckets.push((upper, position));
                }
                None => {
                    let name = self.shown_name(&item.labels);
                    let le = model::Quoted(le);
                    let text = format!(
                        "bucket label \"le\" is missing or has a malformed value of {le}{}",
                        for_metric(name)
                    );
                    self.annotations.warn(at, &text);
                }
            }
        }
        Ok(out)
    }

    /// The answer for one histogram at one step.
    fn answer(
        &self,
        histogram: &Histogram,
        series: &[Series],
        question: &Question,
        (step, at): (usize, Site),
        mended: &mut Mended,
    ) -> Option<f64> {
        let name = self.shown_name(&histogram.labels);
        let mut buckets: Vec<Bucket> = histogram
            .buckets
            .iter()
            .filter_map(|(upper, position)| match series[*position].column.get(step) {
                Some(Point::Float(count)) => Some(Bucket { upper: *upper, count }),
                _ => None,
            })
            .collect();
        let native = histogram.native.and_then(|position| match series[position].column.get(step) {
            Some(Point::Histogram(native)) => Some(Arc::clone(native)),
            _ => None,
        });
        let Some(native) = native else {
            return if buckets.is_empty() {
                None
            } else {
                Some(classic_answer(question, &mut buckets, step, mended))
            };
        };
        if !buckets.is_empty() {
            let text = format!("vector contains a mix of classic and native histograms{}", for_metric(name));
            self.annotations.warn(at, &text);
            return None;
        }
        Some(match question {
            Question::Quantile(q) => self.native_quantile(q[step], &native, name, at),
            Question::Fraction(lower, upper) => {
                let (fraction, has_nan) = histogram::fraction(lower[step], upper[step], &native);
                if has_nan {
                    let text = format!(
                        "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                        for_metric(name)
                    );
                    self.annotations.info(at, &text);
                }
                fraction
            }
        })
    }

    fn native_quantile(&self, q: f64, native: &FloatHistogram, name: &str, at: Site) -> f64 {
        let remark = |what: &str| {
            let text = format!(
                "input to histogram_quantile has NaN observations, result is {what}{}",
                for_metric(name)
            );
            self.annotations.info(at, &text);
        };
        match histogram::quantile(q, native) {
            Quantile::Value(value) => value,
            Quantile::IsNan => {
                remark("NaN");
                f64::NAN
            }
            Quantile::Skewed(value) => {
                remark("skewed higher");
                value
            }
        }
    }
}

/// The answer of a classic histogram; what had to be mended is added to `mended`.
fn classic_answer(question: &Question, buckets: &mut Vec<Bucket>, step: usize, mended: &mut Mended) -> f64 {
    match question {
        Question::Fraction(lower, upper) => classic::fraction(lower[step], upper[step], buckets),
        Question::Quantile(q) => {
            let (value, now) = classic::quantile(q[step], buckets);
            *mended = now;
            value
        }
    }
}

fn forced(mended: &Mended, name: &str) -> String {
    let show = model::float::format_general;
    format!(
        "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        for_metric(name),
        show(mended.lowest),
        show(mended.highest),
        show(two_digits(mended.largest)),
        mended.count,
        date::format_rfc3339(mended.first),
        date::format_rfc3339(mended.last),
    )
}

/// A number rounded to two significant digits.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}
