//! Which code stands behind which function of a range vector.

use model::Value;

use super::{Function, changes, extended, over_time, rate, regression};
use crate::ast::Extension;
use crate::eval::range::{RangeCode, RangeFunction, Window};

/// The code of `function` over an extended selector.
pub(crate) fn extended_function<'a>(function: Function, extension: Extension) -> Option<RangeCode<'a>> {
    let rate = |kind| -> RangeFunction<'a> { Box::new(move |w, r| extended::rate(w, r, kind, extension)) };
    let code: RangeFunction<'a> = match (function, extension) {
        (Function::Rate, _) => rate(rate::Kind::Rate),
        (Function::Increase, _) => rate(rate::Kind::Increase),
        (Function::Delta, _) => rate(rate::Kind::Delta),
        (Function::Changes, Extension::Anchored) => Box::new(|w, _| extended::anchored(w, changes::changes)),
        (Function::Resets, Extension::Anchored) => Box::new(|w, r| {
            extended::anchored(w, if r.uses_starts() { changes::resets_of_started } else { changes::resets })
        }),
        _ => return None,
    };
    Some(code.into())
}

/// The code of `rate` and its like.
fn extrapolated<'a>(kind: rate::Kind) -> RangeCode<'a> {
    RangeCode {
        by_window: Box::new(move |window, remarks| rate::extrapolated(window, remarks, kind)),
        by_column: Some(Box::new(move |samples, windows, remarks, out| {
            rate::column(samples, windows, remarks, kind, out)
        })),
    }
}

/// The code of `min_over_time` and `max_over_time`.
fn extreme<'a>(of_window: fn(&[f64]) -> f64, wins: fn(f64, f64) -> bool) -> RangeCode<'a> {
    RangeCode {
        by_window: Box::new(move |window, remarks| over_time::floats(window, remarks, of_window)),
        by_column: Some(Box::new(move |samples, windows, remarks, out| {
            over_time::extremes(samples, windows, remarks, wins, out)
        })),
    }
}

/// The code of `function`. `params` are its scalar arguments, one number a step each.
pub(crate) fn range_function<'a>(function: Function, params: Vec<Vec<f64>>) -> Option<RangeCode<'a>> {
    let floats = |f: fn(&[f64]) -> f64| -> RangeFunction<'a> {
        Box::new(move |window, remarks| over_time::floats(window, remarks, f))
    };
    let times = |f: fn(&Window<'_>) -> f64| -> RangeFunction<'a> {
        Box::new(move |window, remarks| over_time::float_times(window, remarks, f))
    };
    let one =
        |f: fn(&Window<'_>) -> Option<Value>| -> RangeFunction<'a> { Box::new(move |window, _| f(window)) };
    let code: RangeFunction<'a> = match function {
        Function::Rate => return Some(extrapolated(rate::Kind::Rate)),
        Function::Increase => return Some(extrapolated(rate::Kind::Increase)),
        Function::Delta => return Some(extrapolated(rate::Kind::Delta)),
        Function::Irate => Box::new(|w, r| rate::instant(w, r, true)),
        Function::Idelta => Box::new(|w, r| rate::instant(w, r, false)),
        Function::SumOverTime => Box::new(over_time::sum),
        Function::AvgOverTime => Box::new(over_time::avg),
        Function::MinOverTime => return Some(extreme(over_time::min, |new, old| new < old)),
        Function::MaxOverTime => return Some(extreme(over_time::max, |new, old| new > old)),
        Function::StddevOverTime => floats(|values| over_time::variance(values).sqrt()),
        Function::StdvarOverTime => floats(over_time::variance),
        Function::MadOverTime => floats(over_time::mad),
        Function::QuantileOverTime => Box::new(move |w, r| over_time::quantile(w, r, params[0][w.step])),
        Function::CountOverTime => one(over_time::count),
        Function::PresentOverTime => one(|_| Some(Value::Float(1.0))),
        Function::LastOverTime => one(over_time::last),
        Function::FirstOverTime => one(over_time::first),
        Function::TsOfMinOverTime => times(|w| over_time::time_of_extreme(w, |new, old| new <= old)),
        Function::TsOfMaxOverTime => times(|w| over_time::time_of_extreme(w, |new, old| new >= old)),
        Function::TsOfFirstOverTime => one(over_time::first_time),
        Function::TsOfLastOverTime => one(over_time::last_time),
        Function::Changes => one(changes::changes),
        Function::Resets => {
            Box::new(|w, r| if r.uses_starts() { changes::resets_of_started(w) } else { changes::resets(w) })
        }
        Function::Deriv => Box::new(regression::deriv),
        Function::PredictLinear => Box::new(move |w, r| regression::predict_linear(w, r, params[0][w.step])),
        Function::DoubleExponentialSmoothing => {
            Box::new(move |w, r| regression::smoothed(w, r, params[0][w.step], params[1][w.step]))
        }
        _ => return None,
    };
    Some(code.into())
}
