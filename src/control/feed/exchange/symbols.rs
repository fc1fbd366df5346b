//! Which symbols are traded, and at about what price.

/// The name and the price in dollars of each of the first `count` symbols: well-known ones first,
/// then made-up ones of four letters.
///
/// # Panics
/// If there are not that many names; limits allow far fewer.
pub(super) fn symbols(count: usize) -> Vec<(String, u32)> {
    let known = KNOWN.iter().map(|&(name, price)| (name.to_owned(), price));
    let made_up = (0..NAMES).map(made_up).filter(|(name, _)| !is_known(name));
    let all: Vec<_> = known.chain(made_up).take(count).collect();
    assert_eq!(all.len(), count, "there are enough four-letter names");
    all
}

/// Every four-letter name occurs once as `index` runs over 0..NAMES, since the step and the number of names have no
/// common divisor.
fn made_up(index: u32) -> (String, u32) {
    const STEP: u64 = 275_183;
    let mut code = (u64::from(index) + 1) * STEP % u64::from(NAMES);
    let price = 8 + code % 293;
    let name = (0..4)
        .map(|_| {
            let letter = b'A' + (code % 26) as u8;
            code /= 26;
            char::from(letter)
        })
        .collect();
    (name, price as u32)
}

fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|&(known, _)| known == name)
}

/// Names of four letters.
const NAMES: u32 = 26 * 26 * 26 * 26;

/// Real tickers with plausible prices, so that a demonstration looks familiar; the quotes are fiction.
#[rustfmt::skip]
const KNOWN: [(&str, u32); 200] = [
    ("AAPL", 187), ("MSFT", 415), ("NVDA", 122), ("AMZN", 183), ("GOOGL", 172), ("META", 502),
    ("TSLA", 241), ("AVGO", 158), ("JPM", 205), ("LLY", 842), ("V", 276), ("UNH", 512), ("XOM", 114),
    ("MA", 462), ("COST", 846), ("HD", 352), ("PG", 166), ("JNJ", 152), ("WMT", 69), ("NFLX", 655),
    ("ABBV", 178), ("BAC", 40), ("CRM", 256), ("ORCL", 141), ("CVX", 157), ("KO", 63), ("MRK", 126),
    ("AMD", 161), ("PEP", 168), ("ADBE", 541), ("TMO", 556), ("LIN", 438), ("ACN", 309), ("MCD", 256),
    ("CSCO", 47), ("ABT", 105), ("PM", 103), ("WFC", 59), ("TXN", 196), ("GE", 162), ("QCOM", 198),
    ("INTU", 641), ("DHR", 251), ("IBM", 176), ("VZ", 41), ("AMGN", 314), ("NOW", 755), ("CAT", 331),
    ("ISRG", 441), ("DIS", 98), ("PFE", 28), ("GS", 467), ("SPGI", 448), ("CMCSA", 38), ("UBER", 70),
    ("NEE", 72), ("T", 19), ("RTX", 101), ("AMAT", 228), ("UNP", 228), ("LOW", 219), ("AXP", 236),
    ("BKNG", 3912), ("HON", 213), ("COP", 112), ("INTC", 31), ("ELV", 531), ("VRTX", 472), ("TJX", 111),
    ("MS", 98), ("SYK", 336), ("PGR", 208), ("BLK", 789), ("LMT", 467), ("C", 63), ("BSX", 76),
    ("ADI", 231), ("MDT", 80), ("PLD", 113), ("CB", 256), ("REGN", 1041), ("MMC", 212), ("ADP", 237),
    ("ETN", 319), ("SCHW", 73), ("MU", 131), ("AMT", 195), ("LRCX", 104), ("BX", 122), ("PANW", 332),
    ("DE", 373), ("FI", 149), ("BA", 182), ("TMUS", 178), ("GILD", 68), ("SBUX", 79), ("KLAC", 824),
    ("BMY", 41), ("SO", 79), ("UPS", 137), ("ICE", 138), ("CI", 331), ("MO", 46), ("DUK", 101),
    ("ZTS", 174), ("SHW", 301), ("KKR", 106), ("CL", 97), ("MCO", 421), ("ANET", 341), ("SNPS", 596),
    ("CDNS", 308), ("EQIX", 757), ("CME", 197), ("PYPL", 59), ("TT", 330), ("CMG", 62), ("ITW", 238),
    ("NKE", 94), ("CVS", 59), ("WM", 212), ("PH", 508), ("GD", 291), ("TGT", 147), ("APH", 68),
    ("MCK", 588), ("NOC", 434), ("PNC", 157), ("USB", 40), ("AON", 293), ("MSI", 386), ("EOG", 125),
    ("FDX", 301), ("ORLY", 1052), ("ECL", 239), ("CTAS", 701), ("BDX", 232), ("MAR", 242), ("APD", 259),
    ("CSX", 33), ("CRWD", 384), ("ROP", 562), ("MRVL", 71), ("FCX", 49), ("EMR", 110), ("ABNB", 151),
    ("WELL", 104), ("PSX", 140), ("MPC", 174), ("AJG", 260), ("COF", 138), ("TFC", 39), ("TDG", 1282),
    ("SLB", 47), ("NSC", 215), ("MMM", 102), ("ADSK", 246), ("GM", 46), ("RCL", 159), ("HLT", 218),
    ("DXCM", 113), ("WDAY", 224), ("CEG", 201), ("PCAR", 103), ("AZO", 2951), ("TRV", 203), ("VLO", 157),
    ("OXY", 63), ("NXPI", 269), ("ROST", 146), ("SRE", 76), ("AEP", 88), ("KMB", 139), ("CARR", 63),
    ("OKE", 82), ("MET", 71), ("PSA", 288), ("AFL", 89), ("FTNT", 60), ("ALL", 160), ("MNST", 50),
    ("DLR", 152), ("BK", 60), ("O", 53), ("FANG", 200), ("SPG", 152), ("F", 12), ("DHI", 141),
    ("AIG", 74), ("LULU", 299), ("PLTR", 25), ("COIN", 222), ("SHOP", 66), ("SNOW", 135), ("ROKU", 60),
    ("NET", 83), ("DDOG", 130), ("MDB", 250), ("RIVN", 13),
    ("SOFI", 7),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Topic;
    use crate::limits::DEMO_SYMBOLS_MAX;
    use std::collections::HashSet;

    /// For any count, names are unique and are topics, and prices are positive.
    #[test]
    fn names_are_unique_topics() {
        let count = DEMO_SYMBOLS_MAX as usize;
        let all = symbols(count);
        let names: HashSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), count);
        assert_eq!(all[0].0, "AAPL");
        for (name, price) in &all {
            assert!(*price > 0);
            assert!(Topic::parse(&format!("md.{name}")).is_ok());
        }
        assert_eq!(symbols(5), all[..5]);
    }
}
