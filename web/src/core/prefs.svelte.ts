/** What one has chosen in this browser: theme, columns. Private windows may have no storage; then it lasts as long as the page. */

function read<T>(key: string, otherwise: T): T {
  try {
    const text = localStorage.getItem(`berth.${key}`);
    return text === null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}

function write(key: string, value: unknown): void {
  try {
    localStorage.setItem(`berth.${key}`, JSON.stringify(value));
  } catch {
    // It lasts as long as the page.
  }
}

export type Theme = 'system' | 'light' | 'dark';

class Prefs {
  theme: Theme = $state(read<Theme>('theme', 'system'));
  columns: string[] = $state(read<string[]>('columns', ['state', 'cpu', 'memory', 'disk', 'profile', 'used']));

  setTheme(theme: Theme): void {
    this.theme = theme;
    write('theme', theme);
    this.apply();
  }

  setColumns(columns: string[]): void {
    this.columns = columns;
    write('columns', columns);
  }

  apply(): void {
    if (this.theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }
}

export const prefs = new Prefs();
