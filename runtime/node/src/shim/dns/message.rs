//! As much of RFC 1035 as a forwarder needs: the header, and where the one question ends.

/// Bytes of the header.
const HEADER: usize = 12;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    FormErr = 1,
    ServFail = 2,
    NotImp = 4,
}

/// What to do with a datagram from the berth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// A query with one question, to be passed on as it is.
    Forward,
    Refuse(Code),
    /// Not a query at all: an answer to it could start a loop.
    Ignore,
}

/// Judges what came from the berth.
pub(crate) fn judge(query: &[u8]) -> Query {
    if query.len() < HEADER || query[2] & 0x80 != 0 {
        return Query::Ignore;
    }
    if query[2] & 0x78 != 0 {
        return Query::Refuse(Code::NotImp);
    }
    match question(query) {
        Some(_) => Query::Forward,
        None => Query::Refuse(Code::FormErr),
    }
}

/// True when `response` answers `query`: same id, and the same question where it has one.
pub(crate) fn answers(query: &[u8], response: &[u8]) -> bool {
    if response.len() < HEADER || response[2] & 0x80 == 0 || response[..2] != query[..2] {
        return false;
    }
    match (question(query), question(response)) {
        (Some(asked), Some(answered)) => asked.eq_ignore_ascii_case(answered),
        // An error may come without the question.
        (Some(_), None) => u16::from_be_bytes([response[4], response[5]]) == 0 && code(response) != 0,
        (None, _) => false,
    }
}

/// Response code in a message's header.
pub(crate) fn code(response: &[u8]) -> u8 {
    response[3] & 0x0f
}

/// An answer without records.
pub(crate) fn refusal(query: &[u8], code: Code) -> Vec<u8> {
    let question = question(query).unwrap_or_default();
    let mut answer = query[..HEADER].to_vec();
    // Response; opcode and "recursion desired" as asked.
    answer[2] = 0x80 | (query[2] & 0x79);
    answer[3] = 0x80 | code as u8;
    answer[4..].fill(0);
    answer[5] = u8::from(!question.is_empty());
    answer.extend_from_slice(question);
    answer
}

/// Name, type and class of the only question.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            // A pointer has nothing before it to point at.
            length if length > 63 => return None,
            length => at += 1 + usize::from(length),
        }
        if at - HEADER > 254 {
            return None;
        }
    }
    message.get(HEADER..at + 5)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
        let mut query = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        query
    }

    #[test]
    fn only_plain_queries_pass() {
        let good = query(7, "deb.debian.org");
        assert_eq!(judge(&good), Query::Forward);
        let change = |at: usize, value: u8| {
            let mut changed = good.clone();
            changed[at] = value;
            judge(&changed)
        };
        assert_eq!(change(2, 0x81), Query::Ignore);
        assert_eq!(change(2, 0x28), Query::Refuse(Code::NotImp));
        assert_eq!(change(5, 2), Query::Refuse(Code::FormErr));
        assert_eq!(change(12, 0xc0), Query::Refuse(Code::FormErr));
        assert_eq!(judge(&good[..11]), Query::Ignore);
        assert_eq!(judge(&good[..good.len() - 1]), Query::Refuse(Code::FormErr));
        assert_eq!(judge(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]), Query::Refuse(Code::FormErr));
    }

    #[test]
    fn a_response_counts_only_for_its_own_question() {
        let asked = query(7, "deb.debian.org");
        let mut response = query(7, "DEB.debian.org");
        response[2] = 0x81;
        assert!(answers(&asked, &response));
        assert!(!answers(&asked, &asked));
        response[1] = 8;
        assert!(!answers(&asked, &response));
        let mut other = query(7, "evil.example");
        other[2] = 0x81;
        assert!(!answers(&asked, &other));
        let bare = refusal(&query(7, "x")[..12], Code::FormErr);
        assert!(answers(&asked, &bare));
    }

    #[test]
    fn a_refusal_keeps_id_and_question_only() {
        let mut asked = query(0x1234, "a.b");
        asked.extend([0; 20]);
        let answer = refusal(&asked, Code::ServFail);
        assert_eq!(answer[..12], [0x12, 0x34, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], query(0, "a.b")[12..]);
    }
}
