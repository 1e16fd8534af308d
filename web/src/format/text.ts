/** Words of others: bounded, and with nothing in them that a reader cannot see. */

/** Characters that change how others are shown, or are not shown at all. */
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** `text` with what is hidden made visible, cut after `most` characters. */
export function visible(text: string, most = 256): string {
  const cut = text.length > most ? `${text.slice(0, surrogate(text, most))}…` : text;
  return cut.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** One line of a log: colours of terminals are left out, tabs stay. */
export function logLine(text: string, most = 4000): string {
  const plain = text.slice(0, most * 4).replace(/\u001b\[[0-9;?]*[A-Za-z]/g, '');
  const rest = text.length - most;
  return rest > 0 ? `${visible(plain, most)} (${rest} more characters)` : visible(plain, most);
}

function surrogate(text: string, at: number): number {
  const code = text.charCodeAt(at - 1);
  return code >= 0xd800 && code < 0xdc00 ? at - 1 : at;
}

/** Lines as they come in pieces; never more of one line than `most` is held. */
export class Lines {
  #rest = '';
  #skipped = 0;

  constructor(private readonly most = 16_000) {}

  /** The lines that are whole with this piece. */
  push(piece: string): string[] {
    const parts = piece.split('\n');
    const lines: string[] = [];
    for (let i = 0; i < parts.length; i += 1) {
      const room = this.most - this.#rest.length;
      const part = parts[i]!;
      this.#rest += part.slice(0, Math.max(0, room));
      this.#skipped += Math.max(0, part.length - Math.max(0, room));
      if (i < parts.length - 1) lines.push(this.end());
    }
    return lines;
  }

  /** What is left. */
  end(): string {
    const line = this.#skipped > 0 ? `${this.#rest} (${this.#skipped} more characters)` : this.#rest;
    this.#rest = '';
    this.#skipped = 0;
    return line.replace(/\r$/, '');
  }
}

/** Whether `text` has all words of `query`, in any order and case. */
export function matches(text: string, query: string): boolean {
  const lower = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}
