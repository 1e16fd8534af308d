//! Tables as RFC 4180 has them: commas, double quotes around what holds one, a doubled quote for a quote; LF or CRLF; a BOM is skipped.

/// A row, and the line of the file on which it begins, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub line: usize,
    pub fields: Vec<String>,
}

/// All rows that are not empty; an error is a sentence that names the line.
pub(crate) fn rows(text: &str) -> Result<Vec<Row>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Vec::new();
    let (mut line, mut begun) = (1, 1);
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => {
                quoted = false;
                if !matches!(chars.peek(), None | Some(',' | '\n' | '\r')) {
                    return Err(format!("line {line}: something follows a closing quote"));
                }
            }
            '"' if field.is_empty() => quoted = true,
            '"' => return Err(format!("line {line}: a quote stands inside a field that does not begin with one")),
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && matches!(chars.peek(), None | Some('\n')) => {}
            '\n' if !quoted => {
                end(&mut rows, begun, &mut fields, &mut field);
                line += 1;
                begun = line;
            }
            _ => {
                line += usize::from(c == '\n');
                field.push(c);
            }
        }
    }
    if quoted {
        return Err(format!("line {begun}: a quote is not closed"));
    }
    end(&mut rows, begun, &mut fields, &mut field);
    Ok(rows)
}

fn end(rows: &mut Vec<Row>, line: usize, fields: &mut Vec<String>, field: &mut String) {
    fields.push(std::mem::take(field));
    let fields = std::mem::take(fields);
    if fields.iter().any(|field| !field.trim().is_empty()) {
        rows.push(Row { line, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<Vec<String>> {
        rows(text).unwrap().into_iter().map(|row| row.fields).collect()
    }

    #[test]
    fn quotes_commas_and_lines_are_read_as_the_rfc_says() {
        assert_eq!(fields("a,b\nc,d"), [["a", "b"], ["c", "d"]]);
        assert_eq!(fields("\u{feff}a,b\r\nc,d\r\n"), [["a", "b"], ["c", "d"]]);
        assert_eq!(fields("\"a,\"\"b\"\"\",\"\"\n"), [["a,\"b\"", ""]]);
        assert_eq!(fields("\"two\r\nlines\",x"), [["two\r\nlines", "x"]]);
        assert_eq!(fields("a,\n,b\n"), [["a", ""], ["", "b"]]);
        assert!(fields("\n\r\n , \n").is_empty() && fields("").is_empty());
    }

    #[test]
    fn a_row_knows_its_line_and_a_fault_names_it() {
        let lines: Vec<_> = rows("h\n\n\"x\ny\"\nz\n").unwrap().into_iter().map(|row| row.line).collect();
        assert_eq!(lines, [1, 3, 5]);
        for (text, line) in [("a\nb\"c\n", "line 2"), ("a\n\"b\nc", "line 2"), ("\"a\"b", "line 1")] {
            assert!(rows(text).is_err_and(|error| error.starts_with(line)), "{text}");
        }
    }
}
