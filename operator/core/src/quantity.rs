//! Quantities of Kubernetes as numbers: `1Gi` and `1024Mi` are the same size.

/// The quantity in thousandths of a byte, rounded down; `None` when it is none.
///
/// ```
/// use coterie_operator_core::quantity::thousandths;
/// assert_eq!(thousandths("1Gi"), thousandths("1024Mi"));
/// assert!(thousandths("1G") < thousandths("1Gi"));
/// assert_eq!(thousandths("much"), None);
/// ```
pub fn thousandths(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        exponent => {
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            1_000_u128.checked_mul(10_u128.checked_pow(exponent)?)?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let fraction = parts.checked_mul(scale)? / 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(scale)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::thousandths;

    #[test]
    fn suffixes_fractions_and_exponents_are_read() {
        for (text, expected) in [
            ("1", Some(1_000)),
            ("100m", Some(100)),
            ("1.5Ki", Some(1_536_000)),
            ("1e3", Some(1_000_000)),
            ("0.5", Some(500)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1Xi", None),
            ("99999999999999999999999999999999999999Ei", None),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }
}
