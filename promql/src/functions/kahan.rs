//! Sums that keep what rounding would lose (Kahan, in Neumaier's form).

/// A sum and its compensation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) sum: f64,
    pub(crate) compensation: f64,
}

impl Sum {
    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.compensation += (self.sum - total) + value;
        } else {
            self.compensation += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// The compensated sum.
    pub(crate) fn value(self) -> f64 {
        self.sum + self.compensation
    }
}

/// A mean, computed from a sum as long as that does not overflow, and from a running mean after.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    total: Sum,
    count: f64,
    running: bool,
}

impl Mean {
    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.running {
            let mut next = self.total;
            next.add(value);
            if self.count == 1.0 || !next.sum.is_infinite() {
                self.total = next;
                return;
            }
            self.running = true;
            self.total.sum /= self.count - 1.0;
            self.total.compensation /= self.count - 1.0;
        }
        let weight = (self.count - 1.0) / self.count;
        self.total.sum *= weight;
        self.total.compensation *= weight;
        self.total.add(value / self.count);
    }

    /// The mean; NaN of nothing.
    pub(crate) fn value(self) -> f64 {
        if self.running {
            self.total.value()
        } else {
            self.total.sum / self.count + self.total.compensation / self.count
        }
    }
}

/// Sum of squared distances from the mean (Welford, compensated).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variance {
    mean: Sum,
    squares: Sum,
    count: f64,
}

impl Variance {
    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean.value();
        self.mean.add(delta / self.count);
        self.squares.add(delta * (value - self.mean.value()));
    }

    /// The population variance; NaN of nothing.
    pub(crate) fn value(self) -> f64 {
        self.squares.value() / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let mut sum = Sum::default();
        for value in [1.0, 1e100, 1.0, -1e100] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn the_mean_of_huge_values_does_not_overflow() {
        let mut mean = Mean::default();
        for value in [1.7e308, 1.7e308, -1.7e308, 1.7e308] {
            mean.add(value);
        }
        assert!((mean.value() / 8.5e307 - 1.0).abs() < 1e-12);
        let mut infinite = Mean::default();
        for value in [f64::INFINITY, 1.0] {
            infinite.add(value);
        }
        assert_eq!(infinite.value(), f64::INFINITY);
    }
}
