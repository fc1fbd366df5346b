//! A chart: scales, grid, labels, lines and areas, and the values at the cursor.

use std::fmt::Write as _;

use super::escape;

/// Maps values to positions between 0 and 1.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// Linear, from the first to the second.
    Linear(f64, f64),
    /// Logarithmic; both positive.
    Logarithmic(f64, f64),
}

impl Scale {
    /// From 0 to a round number at or above `max`.
    pub fn from_zero(max: f64) -> Self {
        Self::Linear(0.0, round_up(max.max(f64::MIN_POSITIVE)))
    }

    /// Whole decades, or halves of them, around the values.
    pub fn decades(min: f64, max: f64) -> Self {
        let min = min.max(1.0);
        let max = max.max(min * 1.01);
        let below = 10_f64.powf((min.log10() * 2.0).floor() / 2.0);
        let above = 10_f64.powf((max.log10() * 2.0).ceil() / 2.0);
        Self::Logarithmic(below, above)
    }

    /// The position of `value`; outside 0 to 1 if it is out of range.
    pub fn place(&self, value: f64) -> f64 {
        match *self {
            Self::Linear(from, to) => (value - from) / (to - from),
            Self::Logarithmic(from, to) => {
                (value.max(f64::MIN_POSITIVE) / from).ln() / (to / from).ln()
            }
        }
    }

    /// Round values to label: about `wanted` of them on a linear scale.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        match *self {
            Self::Linear(from, to) => {
                let step = round_up((to - from) / wanted.max(1) as f64);
                let first = (from / step).ceil() as i64;
                (first..)
                    .map(|number| number as f64 * step)
                    .take_while(|tick| *tick <= to * (1.0 + 1e-9))
                    .collect()
            }
            Self::Logarithmic(from, to) => {
                let decades = (to / from).log10();
                let within: &[f64] = match decades {
                    _ if decades <= 1.5 => &[1.0, 2.0, 5.0],
                    _ if decades <= 3.0 => &[1.0, 3.0],
                    _ => &[1.0],
                };
                let first = from.log10().floor() as i32;
                let last = to.log10().ceil() as i32;
                (first..=last)
                    .flat_map(|decade| within.iter().map(move |part| part * 10_f64.powi(decade)))
                    .filter(|tick| (from * 0.999..=to * 1.001).contains(tick))
                    .collect()
            }
        }
    }
}

/// The next of 1, 2, 2.5, 5, 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// A chart under construction.
pub struct Chart {
    /// A description, for people who cannot see it.
    description: String,
    x: Scale,
    y: Scale,
    height_px: u32,
    grid: String,
    shapes: String,
    labels: String,
    legend: String,
    cursor: Vec<(f64, String)>,
}

impl Chart {
    /// An empty one.
    pub fn new(description: String, x: Scale, y: Scale) -> Self {
        Self {
            description,
            x,
            y,
            height_px: 260,
            grid: String::new(),
            shapes: String::new(),
            labels: String::new(),
            legend: String::new(),
            cursor: Vec::new(),
        }
    }

    /// Another height than the usual one.
    pub const fn height(mut self, height_px: u32) -> Self {
        self.height_px = height_px;
        self
    }

    /// A labelled line across, at `value`.
    pub fn y_tick(&mut self, value: f64, label: &str) {
        let place = 1.0 - self.y.place(value);
        if !(-0.001..=1.001).contains(&place) {
            return;
        }
        // Writing to a String does not fail, here and below.
        let _ = write!(self.grid, "M0 {0:.1}H{WIDTH}", place * HEIGHT);
        let _ = write!(
            self.labels,
            "<span class=\"y\" style=\"top:{:.2}%\">{}</span>",
            place * 100.0,
            escape(label)
        );
    }

    /// A labelled line from top to bottom, at `value`; a narrow screen may omit it if `is_minor`.
    pub fn x_tick(&mut self, value: f64, label: &str, is_minor: bool) {
        let place = self.x.place(value);
        if !(-0.001..=1.001).contains(&place) {
            return;
        }
        let _ = write!(self.grid, "M{:.1} 0V{HEIGHT}", place * WIDTH);
        let edge = match place {
            _ if place < 0.03 => " first",
            _ if place > 0.97 => " last",
            _ => "",
        };
        let minor = if is_minor { " minor" } else { "" };
        let _ = write!(
            self.labels,
            "<span class=\"x{edge}{minor}\" style=\"left:{:.2}%\">{}</span>",
            place * 100.0,
            escape(label)
        );
    }

    /// Labels for all of the y scale's ticks.
    pub fn y_ticks(&mut self, wanted: usize, label: impl Fn(f64) -> String) {
        for tick in self.y.ticks(wanted) {
            self.y_tick(tick, &label(tick));
        }
    }

    /// Labels for all of the x scale's ticks; every second one is minor.
    pub fn x_ticks(&mut self, wanted: usize, label: impl Fn(f64) -> String) {
        for (number, tick) in self.x.ticks(wanted).into_iter().enumerate() {
            self.x_tick(tick, &label(tick), number % 2 == 1);
        }
    }

    /// A line through `points`, in the colour of `class`, with an entry in the legend if it has a name.
    /// A NaN interrupts it.
    pub fn line(&mut self, class: &str, name: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let path = self.path(points);
        let _ = write!(self.shapes, "<path class=\"line {class}\" d=\"{path}\"/>");
        self.entry(class, name);
    }

    /// The area between `points` and the bottom. A NaN interrupts it.
    pub fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for part in points.split(|(_, y)| y.is_nan()) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else {
                continue;
            };
            path += &self.path(part.iter().copied());
            let _ = write!(
                path,
                "L{:.1} {HEIGHT}L{:.1} {HEIGHT}Z",
                self.x.place(last.0) * WIDTH,
                self.x.place(first.0) * WIDTH
            );
        }
        let _ = write!(self.shapes, "<path class=\"area {class}\" d=\"{path}\"/>");
    }

    /// Bars from the bottom, each from one x to another, up to a y.
    pub fn bars(
        &mut self,
        class: &str,
        name: &str,
        bars: impl IntoIterator<Item = (f64, f64, f64)>,
    ) {
        let mut path = String::new();
        for (from, to, value) in bars {
            let (left, right) = (self.x.place(from) * WIDTH, self.x.place(to) * WIDTH);
            let top = (1.0 - self.y.place(value).clamp(0.0, 1.0)) * HEIGHT;
            let _ = write!(path, "M{left:.1} {HEIGHT}V{top:.1}H{right:.1}V{HEIGHT}Z");
        }
        let _ = write!(self.shapes, "<path class=\"bar {class}\" d=\"{path}\"/>");
        self.entry(class, name);
    }

    /// Cells, each from one x to another and from one y to another.
    pub fn cells(&mut self, class: &str, cells: &[[f64; 4]]) {
        let mut path = String::new();
        for [from_x, to_x, from_y, to_y] in cells {
            let (left, right) = (self.x.place(*from_x) * WIDTH, self.x.place(*to_x) * WIDTH);
            let top = (1.0 - self.y.place(*to_y)) * HEIGHT;
            let bottom = (1.0 - self.y.place(*from_y)) * HEIGHT;
            let _ = write!(
                path,
                "M{left:.1} {top:.1}h{:.1}v{:.1}h-{0:.1}z",
                right - left,
                bottom - top
            );
        }
        let _ = write!(self.shapes, "<path class=\"cell {class}\" d=\"{path}\"/>");
    }

    /// A region from one x to another with a name, behind everything.
    pub fn band(&mut self, from: f64, to: f64, name: &str, is_even: bool) {
        let (left, right) = (self.x.place(from), self.x.place(to));
        let class = if is_even { "even" } else { "odd" };
        let _ = write!(
            self.shapes,
            "<path class=\"band {class}\" d=\"M{:.1} 0H{:.1}V{HEIGHT}H{0:.1}Z\"/>",
            left * WIDTH,
            right * WIDTH
        );
        let _ = write!(
            self.labels,
            "<span class=\"band\" style=\"left:{:.2}%;width:{:.2}%\">{}</span>",
            left * 100.0,
            (right - left) * 100.0,
            escape(name)
        );
    }

    /// The text at the cursor for `x`.
    pub fn cursor(&mut self, x: f64, text: String) {
        let place = self.x.place(x);
        if (0.0..=1.0).contains(&place) {
            self.cursor.push((place, text));
        }
    }

    fn entry(&mut self, class: &str, name: &str) {
        if !name.is_empty() {
            let _ = write!(
                self.legend,
                "<li><span class=\"key {class}\"></span>{}</li>",
                escape(name)
            );
        }
    }

    fn path(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        let mut is_down = false;
        for (x, y) in points {
            if y.is_nan() {
                is_down = false;
                continue;
            }
            let place = (1.0 - self.y.place(y)).clamp(-0.02, 1.02) * HEIGHT;
            let letter = if is_down { 'L' } else { 'M' };
            let _ = write!(path, "{letter}{:.1} {place:.1}", self.x.place(x) * WIDTH);
            is_down = true;
        }
        path
    }

    /// The chart as HTML.
    pub fn render(self) -> String {
        let legend = match self.legend.as_str() {
            "" => String::new(),
            entries => format!("<ul class=\"legend\">{entries}</ul>"),
        };
        let (mut places, mut texts) = (Vec::new(), Vec::new());
        for (place, text) in self.cursor {
            places.push((place * 1e4).round() / 1e4);
            texts.push(text);
        }
        let cursor = serde_json::json!({ "at": places, "text": texts }).to_string();
        format!(
            "<figure class=\"chart\">{legend}<div class=\"plot\" style=\"height:{}px\" tabindex=\"0\" role=\"img\" aria-label=\"{}\" data-cursor=\"{}\">\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\" focusable=\"false\">\
             <path class=\"grid\" d=\"{}\"/>{}</svg>{}</div></figure>\n",
            self.height_px,
            escape(&self.description),
            escape(&cursor),
            self.grid,
            self.shapes,
            self.labels
        )
    }
}

/// Units of the drawing, which is stretched to the available size.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 300.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks are round, lie within the scale and are neither none nor too many.
    #[test]
    fn ticks_are_few_and_round() {
        assert_eq!(
            Scale::from_zero(87.0).ticks(4),
            [0.0, 25.0, 50.0, 75.0, 100.0]
        );
        assert_eq!(
            Scale::Linear(0.0, 10.0).ticks(5),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
        for (min, max) in [
            (1.0, 2.0),
            (5e3, 7e3),
            (1e3, 1e9),
            (40.0, 41.0),
            (1.0, 3.6e12),
        ] {
            let scale = Scale::decades(min, max);
            let ticks = scale.ticks(5);
            assert!((2..=16).contains(&ticks.len()), "{min} to {max}: {ticks:?}");
            assert!(scale.place(min) >= -1e-9 && scale.place(max) <= 1.0 + 1e-9);
        }
    }

    /// An interrupted line is drawn in parts, and each area ends where its line does.
    #[test]
    fn gaps_are_not_bridged() {
        let mut chart = Chart::new(
            "a gap".to_owned(),
            Scale::Linear(0.0, 4.0),
            Scale::from_zero(1.0),
        );
        let points = [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.0, f64::NAN),
            (3.0, 1.0),
            (4.0, 1.0),
        ];
        chart.area("a", &points);
        chart.line("a", "", points);
        let drawn = chart.render();
        assert!(drawn.contains("d=\"M0.0 0.0L250.0 0.0L250.0 300L0.0 300ZM750.0 0.0L1000.0 0.0L1000.0 300L750.0 300Z\""), "{drawn}");
        assert!(
            drawn.contains("d=\"M0.0 0.0L250.0 0.0M750.0 0.0L1000.0 0.0\""),
            "{drawn}"
        );
    }

    /// An empty chart is still a chart: the drawing contains no NaN.
    #[test]
    fn nothing_to_draw() {
        let mut chart = Chart::new(
            "nothing".to_owned(),
            Scale::from_zero(0.0),
            Scale::decades(0.0, 0.0),
        );
        chart.line("a", "none", []);
        chart.area("a", &[]);
        chart.y_ticks(4, |tick| tick.to_string());
        chart.x_ticks(4, |tick| tick.to_string());
        assert!(!chart.render().contains("NaN"));
    }
}
