//! Roman numerals.

const NUMERALS: [(u32, &str); 13] = [
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
    (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
];

/// A number from 1 to 3999 as a Roman numeral.
pub fn roman(number: u32) -> Option<String> {
    if !(1..=3999).contains(&number) {
        return None;
    }
    let mut rest = number;
    let mut text = String::new();
    for (value, numeral) in NUMERALS {
        while rest >= value {
            rest -= value;
            text.push_str(numeral);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::roman;

    #[test]
    fn numbers_are_written_as_the_romans_did() {
        for (number, text) in [(1, "I"), (4, "IV"), (1994, "MCMXCIV"), (3999, "MMMCMXCIX")] {
            assert_eq!(roman(number).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_they_could_not_write_is_refused() {
        assert_eq!(roman(0), None);
        assert_eq!(roman(4000), None);
    }
}
