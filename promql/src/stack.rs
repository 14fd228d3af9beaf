//! Stack for what recurses along an expression.
//!
//! The tree of `a + a + ... + a` is as high as the chain is long, and everything that walks a tree recurses. A
//! server's threads have 2 MiB. What may be called anywhere (reading, printing, comparing, dropping) looks at each
//! level how much is left, which takes about 2 ns, and goes on in a new piece of memory where it is little;
//! evaluation, whose frames are large, gets a stack for the whole query at once ([`Expr::with_stack`]).

use crate::ast::Expr;
use crate::plan;

/// What one level may take before the next look.
const RESERVE_BYTES: usize = 128 << 10;

/// What is added when that is not there.
const PIECE_BYTES: usize = 2 << 20;

/// Trees up to this height are evaluated on the stack that is there.
const SHALLOW: usize = 24;

/// What evaluation takes for a level, with much to spare.
const LEVEL_BYTES: usize = 16 << 10;

/// Runs `f` with enough stack for one level of recursion.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(RESERVE_BYTES, PIECE_BYTES, f)
}

/// Whether there is enough stack for one more level.
pub(crate) fn suffices() -> bool {
    stacker::remaining_stack().is_none_or(|bytes| bytes > RESERVE_BYTES)
}

impl Expr {
    /// Runs `f`, which may recurse along this expression, on a stack that is large enough for it: 16 KiB a
    /// level.
    pub fn with_stack<T>(&self, f: impl FnOnce() -> T) -> T {
        let height = plan::height(self);
        if height <= SHALLOW {
            return f();
        }
        // Pages that are not touched take no memory.
        let bytes = (height + SHALLOW) * LEVEL_BYTES;
        stacker::maybe_grow(bytes, bytes + PIECE_BYTES, f)
    }
}
