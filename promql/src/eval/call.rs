//! Function calls.

mod absent;
mod histograms;
mod info;

use model::Value;

use super::column::{Column, is_absent};
use super::grid::Grid;
use super::range::Ranged;
use super::select::Yield;
use super::source::{BoxSource, ColumnMap, NameRule, Series};
use super::{Evaluator, misplaced, text};
use crate::annotations::Site;
use crate::ast::{Call, Expr, ExprKind, Extension, ValueType};
use crate::engine::QueryError;
use crate::functions::{Function, date, extended_function, labels, math, range_function, sort};

/// Whether a function needs all series of its argument at once.
pub(super) fn is_whole(call: &Call) -> bool {
    matches!(
        call.function,
        Function::Absent
            | Function::AbsentOverTime
            | Function::HistogramFraction
            | Function::HistogramQuantile
            | Function::HistogramQuantiles
            | Function::Info
            | Function::LabelJoin
            | Function::LabelReplace
            | Function::Sort
            | Function::SortByLabel
            | Function::SortByLabelDesc
            | Function::SortDesc
            | Function::Vector
    ) || call.args.is_empty()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn not_supported(function: Function) -> QueryError {
    QueryError::Execution(format!("function \"{}\" is not supported", function.name()))
}

impl Evaluator<'_> {
    /// A call whose value is a scalar.
    pub(super) fn scalar_call(&self, call: &Call, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let constant = |value| Ok(vec![value; grid.count]);
        let args = &call.args;
        match call.function {
            Function::Pi => constant(std::f64::consts::PI),
            Function::Time => Ok(grid.times().map(seconds).collect()),
            Function::Start => constant(seconds(self.times.query.start)),
            Function::End => constant(seconds(self.times.end)),
            Function::Step => constant(self.times.step_and_range().0),
            Function::Range => constant(self.times.step_and_range().1),
            Function::MaxOf | Function::MinOf => {
                let mut left = self.scalar(&args[0], grid)?;
                for (left, right) in left.iter_mut().zip(self.scalar(&args[1], grid)?) {
                    let max = call.function == Function::MaxOf;
                    *left = if max { math::clamp_min(*left, right) } else { math::clamp_max(*left, right) };
                }
                Ok(left)
            }
            Function::Scalar => self.only_value(&args[0], grid),
            other => Err(not_supported(other)),
        }
    }

    /// `scalar()`: the value of the only series; NaN if there is none or several.
    fn only_value(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let mut values = vec![f64::NAN; grid.count];
        let mut counts = vec![0u32; grid.count];
        let source = self.source(expr, grid)?;
        self.for_each(source.as_ref(), (expr, grid), |_, column| {
            for (step, cell) in column.floats().iter().enumerate() {
                if !is_absent(*cell) {
                    values[step] = *cell;
                    counts[step] += 1;
                }
            }
            Ok(())
        })?;
        for (value, count) in values.iter_mut().zip(counts) {
            if count != 1 {
                *value = f64::NAN;
            }
        }
        Ok(values)
    }

    /// A call whose argument is streamed.
    pub(super) fn streaming_call<'s>(
        &'s self,
        call: &'s Call,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<BoxSource<'s>, QueryError> {
        let function = call.function;
        if let Some(range) = call.args.iter().position(|arg| arg.value_type() == ValueType::Matrix) {
            return self.range_call(call, range, expr, grid);
        }
        if matches!(function, Function::Timestamp | Function::StartTimestamp) {
            return self.timestamp(call, expr, grid);
        }
        let arg = call.args.iter().find(|arg| arg.value_type() == ValueType::Vector);
        let Some(arg) = arg else { return Err(misplaced(expr)) };
        let scalars = call.args.iter().filter(|arg| arg.value_type() == ValueType::Scalar);
        let params = scalars.map(|arg| self.scalar(arg, grid)).collect::<Result<Vec<_>, _>>()?;
        let map = Self::column_map(function, params)?;
        let inner = self.source(arg, grid)?;
        self.mapped(inner, self.drop_rule(), map, (expr, grid))
    }

    /// What a function of one series does to its column.
    fn column_map<'s>(function: Function, params: Vec<Vec<f64>>) -> Result<ColumnMap<'s>, QueryError> {
        if let Some(f) = math::unary(function).or_else(|| date::unary(function)) {
            return Ok(Box::new(move |column| column.map_floats(|_, value| Some(f(value)))));
        }
        let floats = |f: fn(f64, &[Vec<f64>], usize) -> Option<f64>| -> ColumnMap<'s> {
            Box::new(move |column| column.map_floats(|step, value| f(value, &params, step)))
        };
        Ok(match function {
            Function::Round => floats(|value, params, step| {
                Some(math::round(value, params.first().map_or(1.0, |to| to[step])))
            }),
            Function::Clamp => {
                floats(|value, params, step| math::clamp(value, params[0][step], params[1][step]))
            }
            Function::ClampMin => floats(|value, params, step| Some(math::clamp_min(value, params[0][step]))),
            Function::ClampMax => floats(|value, params, step| Some(math::clamp_max(value, params[0][step]))),
            other => Self::histogram_map(other)?,
        })
    }

    /// `timestamp()`: of a bare selector the times of the samples, of anything else that of the step.
    fn timestamp<'s>(
        &'s self,
        call: &'s Call,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<BoxSource<'s>, QueryError> {
        let is_start = call.function == Function::StartTimestamp;
        let arg = call.args[0].unwrapped();
        let (inner, map): (_, ColumnMap<'s>) = match &arg.kind {
            ExprKind::Vector(selector) if selector.extension.is_none() => {
                let yields = if is_start { Yield::StartTime } else { Yield::Time };
                (self.instant_selector(arg, selector, grid, yields)?, Box::new(|_: &mut Column| {}))
            }
            _ if is_start => (self.source(arg, grid)?, Box::new(|column| column.map(|_, _| None))),
            _ => {
                let map: ColumnMap<'s> = Box::new(move |column| {
                    column.map(|step, _| Some(Value::Float(seconds(grid.time(step)))));
                });
                (self.source(arg, grid)?, map)
            }
        };
        self.mapped(inner, self.drop_rule(), map, (expr, grid))
    }

    /// A function of a range vector.
    fn range_call<'s>(
        &'s self,
        call: &'s Call,
        range: usize,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<BoxSource<'s>, QueryError> {
        let function = call.function;
        let arg = call.args[range].unwrapped();
        if let ExprKind::Matrix(matrix) = &arg.kind {
            check_extension(function, matrix.selector.extension)?;
        }
        let scalars = call.args.iter().filter(|arg| arg.value_type() == ValueType::Scalar);
        let params = scalars.map(|arg| self.scalar(arg, grid)).collect::<Result<Vec<_>, _>>()?;
        if function == Function::DoubleExponentialSmoothing {
            check_factors(&params)?;
        }
        let vector = self.range_vector(arg, grid)?;
        let code = match vector.windows.extension {
            Some(extension) => extended_function(function, extension),
            None => range_function(function, params),
        };
        let code = code.ok_or_else(|| not_supported(function))?;
        let keeps = matches!(function, Function::LastOverTime | Function::FirstOverTime);
        let name = if keeps { NameRule::Keep } else { self.drop_rule() };
        let joins = name == NameRule::Drop && !vector.names_unique;
        let source: BoxSource<'s> = Box::new(Ranged {
            evaluator: self,
            expr: arg,
            at: Site::new(expr, &call.args[0]),
            input: vector.input,
            names_unique: vector.names_unique,
            windows: vector.windows,
            code,
            name,
        });
        self.joined(source, joins, (expr, grid))
    }

    /// A call that needs all series of its argument at once.
    pub(super) fn whole_call(&self, call: &Call, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let args = &call.args;
        match call.function {
            Function::Vector => Ok(one_series(self.scalar(&args[0], grid)?)),
            Function::LabelReplace => {
                let texts = args[1..].iter().map(text).collect::<Result<Vec<_>, _>>()?;
                labels::replace(
                    self.taken(&args[0], grid)?,
                    [texts[0], texts[1], texts[2], texts[3]],
                    self.account,
                )
            }
            Function::LabelJoin => {
                let texts = args[1..].iter().map(text).collect::<Result<Vec<_>, _>>()?;
                labels::join(self.taken(&args[0], grid)?, texts[0], texts[1], &texts[2..], self.account)
            }
            Function::Sort | Function::SortDesc | Function::SortByLabel | Function::SortByLabelDesc => {
                self.sorted(call, expr, grid)
            }
            Function::Info => self.info(call, grid),
            Function::Absent => self.absent(&args[0], grid),
            Function::AbsentOverTime => self.absent_over_time(&args[0], grid),
            Function::HistogramQuantile | Function::HistogramQuantiles | Function::HistogramFraction => {
                self.histogram_call(call, expr, grid)
            }
            // A date function without an argument looks at the time of evaluation.
            function if args.is_empty() => match date::unary(function) {
                Some(f) => Ok(one_series(grid.times().map(|time| f(seconds(time))).collect())),
                None => Err(not_supported(function)),
            },
            function => Err(not_supported(function)),
        }
    }

    /// The series of an argument that the call takes over.
    fn taken(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let series = self.vector(expr, grid)?;
        self.release(&series);
        Ok(series)
    }

    fn sorted(&self, call: &Call, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let series = self.taken(&call.args[0], grid)?;
        // A range of one step still is one if its end lies beyond.
        let end = if grid == self.times.query { self.times.end } else { grid.end() };
        if grid.start != end {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            self.annotations.warn(Site::new(expr, expr), text);
            let by_value = matches!(call.function, Function::Sort | Function::SortDesc);
            return if by_value { sort::floats_only(series, self.account) } else { Ok(series) };
        }
        let descending = matches!(call.function, Function::SortDesc | Function::SortByLabelDesc);
        if matches!(call.function, Function::Sort | Function::SortDesc) {
            return sort::by_value(series, descending, self.account);
        }
        let names = call.args[1..].iter().map(text).collect::<Result<Vec<_>, _>>()?;
        sort::by_labels(series, &names, descending, self.account)
    }
}

/// A series without labels.
fn one_series(values: Vec<f64>) -> Vec<Series> {
    let mut column = Column::new(values.len());
    for (step, value) in values.into_iter().enumerate() {
        column.set_float(step, value);
    }
    vec![Series { labels: model::Labels::empty(), drop_name: false, column }]
}

/// Refuses factors of smoothing that are out of bounds.
fn check_factors(params: &[Vec<f64>]) -> Result<(), QueryError> {
    for ((what, symbol), factors) in [("smoothing", "sf"), ("trend", "tf")].into_iter().zip(params) {
        if let Some(bad) = factors.iter().find(|factor| **factor <= 0.0 || **factor >= 1.0) {
            return Err(QueryError::Execution(format!(
                "invalid {what} factor. Expected: 0 < {symbol} < 1, got: {bad:.6}"
            )));
        }
    }
    Ok(())
}

/// Refuses functions that cannot use what an extended selector yields.
fn check_extension(function: Function, extension: Option<Extension>) -> Result<(), QueryError> {
    const SMOOTHED: &[Function] = &[Function::Delta, Function::Increase, Function::Rate];
    const ANCHORED: &[Function] =
        &[Function::Changes, Function::Delta, Function::Increase, Function::Rate, Function::Resets];
    let Some(extension) = extension else { return Ok(()) };
    let allowed = if extension == Extension::Smoothed { SMOOTHED } else { ANCHORED };
    if allowed.contains(&function) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|function| function.name()).collect();
    Err(QueryError::Execution(format!(
        "{} modifier can only be used with: {} - not with {}",
        extension.as_str(),
        names.join(", "),
        function.name()
    )))
}
