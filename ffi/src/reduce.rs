//! Element-wise reduction of several arrays into one: what collectives spend their time on.
//!
//! Memory is the limit, not arithmetic: so every input is read once and the output written once. The arrays are worked
//! through in blocks that stay in the first-level cache: a block of the output takes in one input after the other, and
//! leaves for memory only when it is complete. The loops are plain; the compiler makes vector instructions of them.
//!
//! Inputs are taken in their order, each element by itself, so a result does not depend on how it was divided into parts
//! nor on who computed which: it is bit for bit what a loop over the inputs gives.

use crate::status::{Result, Status};

/// What is done with the elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Sum = 0,
    Product = 1,
    Min = 2,
    Max = 3,
    /// The sum, divided by how many inputs there are; of floating-point numbers only.
    Mean = 4,
}

impl Op {
    pub fn of(code: u32) -> Result<Op> {
        Ok(match code {
            0 => Op::Sum,
            1 => Op::Product,
            2 => Op::Min,
            3 => Op::Max,
            4 => Op::Mean,
            _ => return Err(Status::BadArg),
        })
    }
}

/// What the elements are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    I8 = 0,
    U8 = 1,
    I16 = 2,
    U16 = 3,
    I32 = 4,
    U32 = 5,
    I64 = 6,
    U64 = 7,
    F32 = 8,
    F64 = 9,
}

impl Element {
    pub fn of(code: u32) -> Result<Element> {
        Ok(match code {
            0 => Element::I8,
            1 => Element::U8,
            2 => Element::I16,
            3 => Element::U16,
            4 => Element::I32,
            5 => Element::U32,
            6 => Element::I64,
            7 => Element::U64,
            8 => Element::F32,
            9 => Element::F64,
            _ => return Err(Status::BadArg),
        })
    }
}

/// Numbers that can be reduced. Whole numbers wrap, as they do when JavaScript stores them in a typed array.
trait Number: Copy {
    fn sum(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    /// Not a number wins, as with `Math.min`; which of two zeros wins is not determined.
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn divide(self, count: usize) -> Option<Self>;
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Number for $type {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn product(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                Ord::min(self, other)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                Ord::max(self, other)
            }
            #[inline(always)]
            fn divide(self, _count: usize) -> Option<Self> {
                None
            }
        }
    )*};
}

macro_rules! floating {
    ($($type:ty),*) => {$(
        // `a != a` is the test for not a number that becomes a vector comparison.
        #[allow(clippy::eq_op)]
        impl Number for $type {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn product(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if (self < other) | (self != self) { self } else { other }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if (self > other) | (self != self) { self } else { other }
            }
            #[inline(always)]
            fn divide(self, count: usize) -> Option<Self> {
                Some(self / count as $type)
            }
        }
    )*};
}

whole!(i8, u8, i16, u16, i32, u32, i64, u64);
floating!(f32, f64);

/// Bytes of a block: with as much of an input beside it, well within 32 KiB.
const BLOCK_BYTES: usize = 8 << 10;

/// Reduces `inputs` (addresses of arrays of at least `len` elements) into `out`.
///
/// # Safety
/// All arrays are valid for `len` elements until this returns, aligned to them, and `out` overlaps no input, unless it is
/// the first one exactly.
pub unsafe fn reduce(
    op: Op,
    element: Element,
    inputs: &[*const u8],
    out: *mut u8,
    len: usize,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        match element {
            Element::I8 => typed::<i8>(op, inputs, out, len),
            Element::U8 => typed::<u8>(op, inputs, out, len),
            Element::I16 => typed::<i16>(op, inputs, out, len),
            Element::U16 => typed::<u16>(op, inputs, out, len),
            Element::I32 => typed::<i32>(op, inputs, out, len),
            Element::U32 => typed::<u32>(op, inputs, out, len),
            Element::I64 => typed::<i64>(op, inputs, out, len),
            Element::U64 => typed::<u64>(op, inputs, out, len),
            Element::F32 => typed::<f32>(op, inputs, out, len),
            Element::F64 => typed::<f64>(op, inputs, out, len),
        }
    }
}

/// # Safety
/// As for `reduce`.
unsafe fn typed<T: Number>(op: Op, inputs: &[*const u8], out: *mut u8, len: usize) -> Result<()> {
    let align = std::mem::align_of::<T>();
    let addresses = inputs.iter().copied().chain([out as *const u8]);
    if inputs.is_empty()
        || addresses
            .into_iter()
            .any(|p| p.is_null() || p as usize % align != 0)
    {
        return Err(Status::BadArg);
    }
    let inputs: Vec<*const T> = inputs.iter().map(|p| p.cast()).collect();
    let out = out.cast::<T>();
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            Op::Sum => blocks(&inputs, out, len, T::sum),
            Op::Product => blocks(&inputs, out, len, T::product),
            Op::Min => blocks(&inputs, out, len, T::min),
            Op::Max => blocks(&inputs, out, len, T::max),
            Op::Mean => return mean(&inputs, out, len),
        }
    }
    Ok(())
}

/// # Safety
/// As for `reduce`.
#[inline(always)]
unsafe fn blocks<T: Number>(
    inputs: &[*const T],
    out: *mut T,
    len: usize,
    op: impl Fn(T, T) -> T + Copy,
) {
    let step = BLOCK_BYTES / std::mem::size_of::<T>();
    let mut at = 0;
    while at < len {
        let n = step.min(len - at);
        // SAFETY: `at + n` is within all arrays.
        unsafe { block(inputs, out, at, n, op) };
        at += n;
    }
}

/// # Safety
/// As for `reduce`, from `at` on.
#[inline(always)]
unsafe fn block<T: Number>(
    inputs: &[*const T],
    out: *mut T,
    at: usize,
    n: usize,
    op: impl Fn(T, T) -> T + Copy,
) {
    // SAFETY: the caller's promise; no reference to the output is held while an input is read that may be it.
    unsafe {
        let target = out.add(at);
        let mut rest = &inputs[1..];
        if let [second, more @ ..] = rest {
            if std::ptr::eq(inputs[0], out) {
                combine(target, second.add(at), n, op);
            } else {
                join(target, inputs[0].add(at), second.add(at), n, op);
            }
            rest = more;
        } else if !std::ptr::eq(inputs[0], out) {
            std::ptr::copy_nonoverlapping(inputs[0].add(at), target, n);
        }
        for input in rest {
            combine(target, input.add(at), n, op);
        }
    }
}

/// # Safety
/// Three ranges of `n` elements that do not overlap.
#[inline(always)]
unsafe fn join<T: Number>(out: *mut T, a: *const T, b: *const T, n: usize, op: impl Fn(T, T) -> T) {
    // SAFETY: the caller's promise.
    let (out, a, b) = unsafe {
        (
            std::slice::from_raw_parts_mut(out, n),
            std::slice::from_raw_parts(a, n),
            std::slice::from_raw_parts(b, n),
        )
    };
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = op(a, b);
    }
}

/// # Safety
/// Two ranges of `n` elements that do not overlap.
#[inline(always)]
unsafe fn combine<T: Number>(out: *mut T, a: *const T, n: usize, op: impl Fn(T, T) -> T) {
    // SAFETY: the caller's promise.
    let (out, a) = unsafe {
        (
            std::slice::from_raw_parts_mut(out, n),
            std::slice::from_raw_parts(a, n),
        )
    };
    for (out, &a) in out.iter_mut().zip(a) {
        *out = op(*out, a);
    }
}

/// # Safety
/// As for `reduce`.
unsafe fn mean<T: Number>(inputs: &[*const T], out: *mut T, len: usize) -> Result<()> {
    let count = inputs.len();
    let step = BLOCK_BYTES / std::mem::size_of::<T>();
    let mut at = 0;
    while at < len {
        let n = step.min(len - at);
        // SAFETY: `at + n` is within all arrays.
        unsafe {
            block(inputs, out, at, n, T::sum);
            for value in std::slice::from_raw_parts_mut(out.add(at), n) {
                *value = value.divide(count).ok_or(Status::BadArg)?;
            }
        }
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reduction of small arrays that only this crate's tests need; all else is tested from outside.
    fn reduced<T: Copy + Default>(op: Op, element: Element, inputs: &[&[T]]) -> Result<Vec<T>> {
        let mut out = vec![T::default(); inputs[0].len()];
        let addresses: Vec<*const u8> = inputs.iter().map(|a| a.as_ptr().cast()).collect();
        // SAFETY: all vectors have that length.
        unsafe { reduce(op, element, &addresses, out.as_mut_ptr().cast(), out.len())? };
        Ok(out)
    }

    #[test]
    fn blocks_and_their_ends_are_all_reduced() {
        for len in [0, 1, 7, 2047, 2048, 2049, 10_000] {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..len).map(|i| 2.0 * i as f32).collect();
            let sum = reduced(Op::Sum, Element::F32, &[&a, &b, &b]).unwrap();
            assert!(sum.iter().enumerate().all(|(i, &x)| x == 5.0 * i as f32));
            let mean = reduced(Op::Mean, Element::F32, &[&a, &b, &a, &b]).unwrap();
            assert!(mean.iter().enumerate().all(|(i, &x)| x == 1.5 * i as f32));
            assert_eq!(reduced(Op::Max, Element::F32, &[&a]).unwrap(), a);
        }
    }

    #[test]
    fn the_first_input_may_be_the_output() {
        let mut a = vec![1i64, 2, 3];
        let b = [10i64, 20, 30];
        let inputs = [a.as_ptr().cast(), b.as_ptr().cast(), b.as_ptr().cast()];
        // SAFETY: arrays of three.
        unsafe { reduce(Op::Sum, Element::I64, &inputs, a.as_mut_ptr().cast(), 3).unwrap() };
        assert_eq!(a, [21, 42, 63]);
    }

    #[test]
    fn whole_numbers_wrap_and_have_no_mean() {
        assert_eq!(
            reduced(Op::Sum, Element::U8, &[&[200u8], &[100]]).unwrap(),
            [44]
        );
        assert_eq!(
            reduced(Op::Mean, Element::U8, &[&[2u8], &[4]]).unwrap_err(),
            Status::BadArg
        );
    }

    #[test]
    fn what_is_no_number_wins() {
        let (nan, one) = (&[f64::NAN][..], &[1.0][..]);
        for op in [Op::Min, Op::Max, Op::Sum] {
            assert!(reduced(op, Element::F64, &[nan, one]).unwrap()[0].is_nan());
            assert!(reduced(op, Element::F64, &[one, nan]).unwrap()[0].is_nan());
        }
    }
}
