//! The live view.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row as TableRow, Table, TableState};

use super::plain;
use super::rows::{self, Kind, Order, Row};
use super::source::{Question, Source};

/// Looks that a spark line remembers.
const PAST: usize = 30;

/// Eight heights.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

type Key = (String, String, String);

/// What is on the screen.
struct View {
    kind: Kind,
    order: Order,
    reversed: bool,
    filter: String,
    /// Whether keys go into the filter.
    is_typing: bool,
    rows: Vec<Row>,
    past: HashMap<Key, VecDeque<f64>>,
    selected: TableState,
    /// Why the last look failed.
    trouble: Option<String>,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Look,
    End,
}

/// Runs until a key ends it.
pub(super) fn run(
    source: &Source,
    question: &Question,
    (order, filter): (Order, &str),
    every: Duration,
) -> anyhow::Result<()> {
    let mut view = View::new(question.kind, order, filter);
    // The first look fails before the screen is taken.
    view.show(source.rows(question)?);
    let mut terminal = ratatui::try_init()?;
    let ended = follow(&mut terminal, &mut view, (source, question), every);
    ratatui::restore();
    ended
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    (source, question): (&Source, &Question),
    every: Duration,
) -> anyhow::Result<()> {
    let mut next = Instant::now() + every;
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        let mut asked = Asked::Nothing;
        if event::poll(next.saturating_duration_since(Instant::now()))?
            && let Event::Key(key) = event::read()?
        {
            asked = view.key(key);
        }
        if asked == Asked::End {
            return Ok(());
        }
        if asked == Asked::Look || Instant::now() >= next {
            match source.rows(question) {
                Ok(rows) => view.show(rows),
                Err(error) => view.trouble = Some(format!("{error:#}")),
            }
            next = Instant::now() + every;
        }
    }
}

impl View {
    fn new(kind: Kind, order: Order, filter: &str) -> Self {
        Self {
            kind,
            order,
            reversed: false,
            filter: filter.to_owned(),
            is_typing: false,
            rows: Vec::new(),
            past: HashMap::new(),
            selected: TableState::default().with_selected(0),
            trouble: None,
        }
    }

    /// Takes a new look at things; what is gone is forgotten.
    fn show(&mut self, rows: Vec<Row>) {
        let mut past = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (namespace, name, container) = row.key();
            let key = (namespace.to_owned(), name.to_owned(), container.to_owned());
            let mut values = self.past.remove(&key).unwrap_or_default();
            if values.len() == PAST {
                values.pop_front();
            }
            values.push_back(row.cpu_cores);
            past.insert(key, values);
        }
        (self.rows, self.past, self.trouble) = (rows, past, None);
    }

    fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind != KeyEventKind::Press {
            return Asked::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Asked::End;
        }
        if self.is_typing {
            match key.code {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            return Asked::Nothing;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Asked::End,
            KeyCode::Char(' ') => return Asked::Look,
            KeyCode::Char('c') => self.order = Order::Cpu,
            KeyCode::Char('m') => self.order = Order::Memory,
            KeyCode::Char('n') => self.order = Order::Name,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::PageDown => self.selected.scroll_down_by(20),
            KeyCode::PageUp => self.selected.scroll_up_by(20),
            KeyCode::Home => self.selected.select_first(),
            KeyCode::End => self.selected.select_last(),
            _ => {}
        }
        Asked::Nothing
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [title, body, help] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        let mut shown = rows::filtered(self.rows.clone(), &self.filter);
        rows::sort(&mut shown, self.order, self.reversed);
        let (cpu, memory) = shown
            .iter()
            .fold((0.0, 0.0), |(cpu, memory), row| (cpu + row.cpu_cores, memory + row.memory_bytes));
        let count = format!("{} of {}", shown.len(), self.rows.len());
        let total = format!("{count}: {} CPU, {} memory", rows::cores(cpu), rows::bytes(memory));
        frame.render_widget(Line::styled(total, Style::new().add_modifier(Modifier::BOLD)), title);
        let mut titles = plain::titles(self.kind, false);
        titles.push("CPU UNTIL NOW");
        let mut widths: Vec<usize> = titles.iter().map(|title| title.len()).collect();
        let mut lines = Vec::with_capacity(shown.len());
        for row in &shown {
            let mut cells = plain::cells(row, self.kind, false);
            cells.push(self.spark(row));
            for (width, cell) in widths.iter_mut().zip(&cells) {
                *width = (*width).max(cell.chars().count());
            }
            lines.push(TableRow::new(cells));
        }
        let widths =
            widths.into_iter().map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
        let table = Table::new(lines, widths)
            .header(TableRow::new(titles).style(Style::new().add_modifier(Modifier::REVERSED)))
            .column_spacing(2)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, body, &mut self.selected);
        let line = match (&self.trouble, self.is_typing) {
            (Some(trouble), _) => Line::styled(trouble.clone(), Style::new().add_modifier(Modifier::BOLD)),
            (None, true) => Line::raw(format!("/{}_   Enter keeps, Esc clears", self.filter)),
            (None, false) => Line::raw("c cpu  m memory  n name  r reverse  / filter  space now  q quit"),
        };
        frame.render_widget(line, help);
    }

    fn spark(&self, row: &Row) -> String {
        let (namespace, name, container) = row.key();
        let past = self.past.get(&(namespace.to_owned(), name.to_owned(), container.to_owned()));
        past.map_or_else(String::new, spark)
    }
}

/// A line of bars, the greatest value the highest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn spark(values: &VecDeque<f64>) -> String {
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    values.iter().map(|value| BARS[((value / most * 7.0).round() as usize).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn view() -> View {
        let mut view = View::new(Kind::Pods, Order::Cpu, "");
        for cpu in [1.0, 2.0] {
            let row = |name: &str, cpu_cores: f64| Row {
                namespace: "ns".to_owned(),
                name: name.to_owned(),
                cpu_cores,
                memory_bytes: 5000.0,
                ..Row::default()
            };
            view.show(vec![row("small", 0.1), row("large", cpu)]);
        }
        view
    }

    fn screen(view: &mut View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(60, 6)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| (0..60).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..6).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn press(view: &mut View, keys: &str) -> Asked {
        let mut asked = Asked::Nothing;
        for c in keys.chars() {
            let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
            asked = view.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        asked
    }

    #[test]
    fn the_greediest_stands_first_with_its_past() {
        let wanted = [
            "2 of 2: 2100m CPU, 10000B memory",
            "NAMESPACE  NAME   CPU    MEMORY  CPU UNTIL NOW",
            "ns         large  2000m  5000B   ▅█",
            "ns         small  100m   5000B   ██",
            "",
            "c cpu  m memory  n name  r reverse  / filter  space now  q quit",
        ];
        let mut view = view();
        let shown = screen(&mut view);
        assert_eq!(shown[1..5], wanted[1..5]);
        assert!(shown[0].starts_with("2 of 2: 2100m CPU"), "{}", shown[0]);
    }

    #[test]
    fn keys_sort_filter_and_end() {
        let mut view = view();
        press(&mut view, "n");
        assert!(screen(&mut view)[2].contains("large"));
        press(&mut view, "r");
        assert!(screen(&mut view)[2].contains("small"));
        assert_eq!(press(&mut view, "/lq"), Asked::Nothing);
        view.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        press(&mut view, "arge\n");
        assert!(screen(&mut view)[2].contains("large") && screen(&mut view)[3].is_empty());
        assert_eq!(press(&mut view, " "), Asked::Look);
        assert_eq!(press(&mut view, "q"), Asked::End);
    }

    #[test]
    fn trouble_is_shown_and_the_last_look_stays() {
        let mut view = view();
        view.trouble = Some("no answer".to_owned());
        assert_eq!(screen(&mut view)[5], "no answer");
        assert!(screen(&mut view)[2].contains("large"));
    }
}
