//! The language evaluated step by step from its definition: slow, small, and the model of the engine.

use std::collections::BTreeMap;

use model::{Labels, METRIC_NAME, Value, is_stale_nan};
use promql::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Cardinality, Duration, Expr, ExprKind, Selector,
};
use promql::functions::Function;

use super::storage::Memory;

/// A query over a store.
pub struct Naive<'a> {
    pub store: &'a Memory,
    pub start: i64,
    pub end: i64,
}

type Vector = Vec<(Labels, f64)>;
type Answer<T> = Result<T, String>;
type Ranges = Vec<(Labels, Vec<(i64, f64)>, i64, i64)>;

fn ms(duration: &Duration) -> i64 {
    match duration {
        Duration::Number(number) => (number.value * 1000.0).round() as i64,
        other => unreachable!("{other}"),
    }
}

fn unique(vector: Vector) -> Answer<Vector> {
    let mut seen = BTreeMap::new();
    for (labels, _) in &vector {
        if seen.insert(labels.clone(), ()).is_some() {
            return Err("same labelset".into());
        }
    }
    Ok(vector)
}

impl Naive<'_> {
    fn moved(&self, at: i64, pin: Option<At>, offset: Option<&Duration>) -> i64 {
        let base = match pin {
            Some(At::Time(ts)) => ts,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
            None => at,
        };
        base - offset.map_or(0, ms)
    }

    fn series(&self, selector: &Selector) -> impl Iterator<Item = (&Labels, Vec<(i64, f64)>)> {
        let fits =
            |labels: &Labels| selector.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
        let found = self.store.0.iter().filter(move |(labels, _)| fits(labels)).map(|(labels, samples)| {
            let points = samples.iter().map(|s| match s.value {
                Value::Float(value) => (s.ts, value),
                Value::Histogram(_) => unreachable!(),
            });
            (labels, points.collect::<Vec<_>>())
        });
        found.collect::<Vec<_>>().into_iter()
    }

    pub fn scalar(&self, expr: &Expr) -> f64 {
        match &expr.unwrapped().kind {
            ExprKind::Number(number) => number.value,
            other => unreachable!("{other:?}"),
        }
    }

    pub fn vector(&self, expr: &Expr, at: i64) -> Answer<Vector> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.vector(inner, at),
            ExprKind::Vector(selector) => {
                let time = self.moved(at, selector.at, selector.offset.as_ref());
                let newest = |points: Vec<(i64, f64)>| {
                    points.into_iter().rfind(|(ts, _)| *ts <= time && *ts > time - 300_000)
                };
                Ok(self
                    .series(selector)
                    .filter_map(|(labels, points)| {
                        let (_, value) = newest(points)?;
                        (!is_stale_nan(value)).then(|| (labels.clone(), value))
                    })
                    .collect())
            }
            ExprKind::Unary(unary) => {
                let inner = self.vector(&unary.expr, at)?;
                unique(inner.into_iter().map(|(l, v)| (l.without_name(), -v)).collect())
            }
            ExprKind::Call(call) if call.args[0].value_type() == promql::ValueType::Matrix => {
                self.over_time(call.function, &call.args[0], at)
            }
            ExprKind::Call(call) => {
                let f = match call.function {
                    Function::Abs => f64::abs,
                    Function::Ceil => f64::ceil,
                    Function::Floor => f64::floor,
                    _ => |v: f64| {
                        if v > 0.0 {
                            1.0
                        } else if v < 0.0 {
                            -1.0
                        } else {
                            v
                        }
                    },
                };
                let inner = self.vector(&call.args[0], at)?;
                unique(inner.into_iter().map(|(l, v)| (l.without_name(), f(v))).collect())
            }
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, at),
            ExprKind::Binary(binary) => self.binary(binary, at),
            other => unreachable!("{other:?}"),
        }
    }

    fn ranges(&self, expr: &Expr, at: i64) -> Answer<Ranges> {
        match &expr.kind {
            ExprKind::Matrix(matrix) => {
                let selector = &matrix.selector;
                let end = self.moved(at, selector.at, selector.offset.as_ref());
                let start = end - ms(&matrix.range);
                let inside = |points: Vec<(i64, f64)>| {
                    let kept =
                        points.into_iter().filter(|(ts, v)| *ts > start && *ts <= end && !is_stale_nan(*v));
                    kept.collect::<Vec<_>>()
                };
                Ok(self.series(selector).map(|(l, points)| (l.clone(), inside(points), start, end)).collect())
            }
            ExprKind::Subquery(subquery) => {
                let end = self.moved(at, subquery.at, subquery.offset.as_ref());
                let start = end - ms(&subquery.range);
                let step = subquery.step.as_ref().map_or(60_000, ms);
                let mut series: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
                let mut time = (start.div_euclid(step) + 1) * step;
                while time <= end {
                    for (labels, value) in self.vector(&subquery.expr, time)? {
                        series.entry(labels).or_default().push((time, value));
                    }
                    time += step;
                }
                Ok(series.into_iter().map(|(labels, points)| (labels, points, start, end)).collect())
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn over_time(&self, function: Function, arg: &Expr, at: i64) -> Answer<Vector> {
        let mut out = Vec::new();
        for (labels, points, start, end) in self.ranges(arg, at)? {
            if let Some(value) = over_time(function, &points, start, end) {
                let keeps = function == Function::LastOverTime;
                out.push((if keeps { labels } else { labels.without_name() }, value));
            }
        }
        unique(out)
    }

    fn aggregate(&self, aggregate: &Aggregate, at: i64) -> Answer<Vector> {
        let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        for (labels, value) in self.vector(&aggregate.expr, at)? {
            let listed = |name: &str| aggregate.grouping.iter().any(|label| label == name);
            let key = labels.filtered(|name| {
                if aggregate.without { !listed(name) && name != METRIC_NAME } else { listed(name) }
            });
            groups.entry(key).or_default().push(value);
        }
        let n = |values: &[f64]| values.len() as f64;
        let fold = |values: &[f64], wins: fn(f64, f64) -> bool| {
            values.iter().copied().reduce(|a, b| if a.is_nan() || wins(b, a) { b } else { a }).unwrap()
        };
        let value = |values: &[f64]| match aggregate.op {
            AggregateOp::Sum => values.iter().sum(),
            AggregateOp::Avg => values.iter().sum::<f64>() / n(values),
            AggregateOp::Min => fold(values, |new, old| new < old),
            AggregateOp::Max => fold(values, |new, old| new > old),
            AggregateOp::Count => n(values),
            AggregateOp::Group => 1.0,
            _ => {
                // Welford's, as the reference has it: a comparison with a round number sees the last bit.
                let (mut mean, mut squares) = (0.0, 0.0);
                for (at, value) in values.iter().enumerate() {
                    let delta = value - mean;
                    mean += delta / n(&values[..=at]);
                    squares += delta * (value - mean);
                }
                squares / n(values)
            }
        };
        Ok(groups.into_iter().map(|(labels, values)| (labels, value(&values))).collect())
    }

    fn binary(&self, binary: &Binary, at: i64) -> Answer<Vector> {
        let is_scalar = |expr: &Expr| expr.value_type() == promql::ValueType::Scalar;
        let drops = !binary.op.is_comparison() || binary.bool_modifier;
        if is_scalar(&binary.left) || is_scalar(&binary.right) {
            let left = is_scalar(&binary.left);
            let number = self.scalar(if left { &binary.left } else { &binary.right });
            let vector = self.vector(if left { &binary.right } else { &binary.left }, at)?;
            let mut out = Vec::new();
            for (labels, value) in vector {
                let (a, b) = if left { (number, value) } else { (value, number) };
                if let Some(result) = operate(binary, a, b, value) {
                    out.push((if drops { labels.without_name() } else { labels }, result));
                }
            }
            return unique(out);
        }
        let (left, right) = (self.vector(&binary.left, at)?, self.vector(&binary.right, at)?);
        let matching = &binary.matching;
        let listed = |name: &str| matching.labels.iter().any(|label| label == name);
        let key = |labels: &Labels| {
            labels.filtered(
                |name| if matching.on { listed(name) } else { !listed(name) && name != METRIC_NAME },
            )
        };
        if binary.op.is_set() {
            let in_right = |labels: &Labels| right.iter().any(|(other, _)| key(other) == key(labels));
            let in_left = |labels: &Labels| left.iter().any(|(other, _)| key(other) == key(labels));
            return match binary.op {
                BinaryOp::And => Ok(left.iter().filter(|(l, _)| in_right(l)).cloned().collect()),
                BinaryOp::Unless => Ok(left.iter().filter(|(l, _)| !in_right(l)).cloned().collect()),
                _ => unique(left.iter().chain(right.iter().filter(|(l, _)| !in_left(l))).cloned().collect()),
            };
        }
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        if many.is_empty() || one.is_empty() {
            return Ok(Vec::new());
        }
        let mut ones = BTreeMap::new();
        for (labels, value) in one {
            if ones.insert(key(labels), (labels, *value)).is_some() {
                return Err("duplicate series".into());
            }
        }
        let mut taken = Vec::new();
        let mut out = Vec::new();
        for (labels, value) in many {
            let Some((other, other_value)) = ones.get(&key(labels)) else { continue };
            let mut result = labels.filtered(|name| {
                (name != METRIC_NAME || !drops)
                    && (matching.cardinality != Cardinality::OneToOne || listed(name) == matching.on)
            });
            for label in &matching.include {
                let mut builder = result.to_builder();
                builder.set(label, other.get(label).unwrap_or(""));
                result = builder.build();
            }
            let one_to_one = matching.cardinality == Cardinality::OneToOne;
            let mark = (key(labels), if one_to_one { Labels::empty() } else { result.clone() });
            if taken.contains(&mark) {
                return Err("multiple matches".into());
            }
            taken.push(mark);
            let (a, b) = if swapped { (*other_value, *value) } else { (*value, *other_value) };
            if let Some(value) = operate(binary, a, b, a) {
                out.push((result, value));
            }
        }
        unique(out)
    }
}

fn operate(binary: &Binary, a: f64, b: f64, kept: f64) -> Option<f64> {
    let holds = match binary.op {
        BinaryOp::Add => return Some(a + b),
        BinaryOp::Sub => return Some(a - b),
        BinaryOp::Mul => return Some(a * b),
        BinaryOp::Div => return Some(a / b),
        BinaryOp::Mod => return Some(a % b),
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Greater => a > b,
        BinaryOp::Less => a < b,
        BinaryOp::LessEqual => a <= b,
        other => unreachable!("{other:?}"),
    };
    if binary.bool_modifier { Some(f64::from(u8::from(holds))) } else { holds.then_some(kept) }
}

fn over_time(function: Function, points: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
    let values: Vec<f64> = points.iter().map(|point| point.1).collect();
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let extreme = |wins: fn(f64, f64) -> bool| {
        values.iter().copied().reduce(|a, b| if a.is_nan() || wins(b, a) { b } else { a })
    };
    let pairs = || values.windows(2).map(|pair| (pair[0], pair[1]));
    match function {
        Function::SumOverTime => Some(values.iter().sum()),
        Function::AvgOverTime => Some(values.iter().sum::<f64>() / n),
        Function::MinOverTime => extreme(|new, old| new < old),
        Function::MaxOverTime => extreme(|new, old| new > old),
        Function::CountOverTime => Some(n),
        Function::LastOverTime => values.last().copied(),
        Function::Changes => {
            Some(pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64)
        }
        Function::Resets => Some(pairs().filter(|(a, b)| b < a).count() as f64),
        Function::Irate => {
            let [.., (t1, a), (t2, b)] = points else { return None };
            let growth = if b < a { *b } else { b - a };
            Some(growth / ((t2 - t1) as f64 / 1000.0))
        }
        _ => {
            if values.len() < 2 {
                return None;
            }
            let counter = function != Function::Delta;
            let lost: f64 = if counter { pairs().filter(|(a, b)| b < a).map(|(a, _)| a).sum() } else { 0.0 };
            let raw = values[values.len() - 1] - values[0] + lost;
            let span = (points[points.len() - 1].0 - points[0].0) as f64;
            let gap = span / (n - 1.0);
            let near = |distance: f64| if distance < 1.1 * gap { distance } else { gap / 2.0 };
            let mut left = near((points[0].0 - start) as f64);
            if counter && raw > 0.0 && values[0] >= 0.0 {
                left = left.min(span * values[0] / raw);
            }
            let right = near((end - points[points.len() - 1].0) as f64);
            let grown = raw * (span + left + right) / span;
            Some(if function == Function::Rate { grown / ((end - start) as f64 / 1000.0) } else { grown })
        }
    }
}
