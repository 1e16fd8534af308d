import { describe, expect, it } from 'vitest';

import {
  bits, bytes, count, cpuUse, cpuWords, dockerSize, parseBits, parseBytes, parseCount, parseCpus, parseSpan, percent, plural, span, typedBits, typedBytes,
} from './units';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

describe('sizes', () => {
  it('are in the units of the command line', () => {
    expect([0, 1023, 1024, 43.1 * MIB, 2 * GIB, 1.5 * GIB, 1024 * GIB].map(bytes)).toEqual(['0 B', '1023 B', '1 KiB', '43.1 MiB', '2 GiB', '1.5 GiB', '1 TiB']);
  });
  it('pass to the next unit rather than show 1024', () => {
    expect(bytes(GIB - 1)).toBe('1 GiB');
    expect(bytes(1023.94 * MIB)).toBe('1023.9 MiB');
  });
  it('of images are as docker images says them', () => {
    expect([0, 999, 1000, 7_330_000, 187_654_321, 1_234_567_890].map(dockerSize)).toEqual(['0B', '999B', '1kB', '7.33MB', '188MB', '1.23GB']);
  });
  it('are read as the flags of docker are', () => {
    expect(parseBytes('512m')).toEqual({ value: 512 * MIB });
    expect(parseBytes(' 1.5 GiB ')).toEqual({ value: 1.5 * GIB });
    expect(parseBytes('4G')).toEqual({ value: 4 * GIB });
    expect(parseBytes('100')).toEqual({ value: 100 });
    for (const wrong of ['', 'g', '-1g', '4 gigs', '1e9', '0x10', '9999999p']) expect(parseBytes(wrong), wrong).toHaveProperty('error');
  });
  it('come back as they were typed', () => {
    for (const value of [256 * MIB, 1.5 * GIB, 10 * GIB, 1024 ** 4, GIB + 1, 123_456_789]) {
      expect(parseBytes(typedBytes(value)), typedBytes(value)).toEqual({ value });
    }
    expect([typedBytes(1.5 * GIB), typedBytes(4 * GIB), typedBytes(7)]).toEqual(['1.5g', '4g', '7']);
  });
});

describe('CPUs', () => {
  it('have decimals where they need them', () => {
    expect([1000, 1500, 50].map(cpuWords)).toEqual(['1 CPU', '1.5 CPUs', '0.05 CPUs']);
    expect([0, 0.004, 0.42, 12.345].map(cpuUse)).toEqual(['0', '0', '0.42', '12.3']);
  });
  it('are read with a point or a comma', () => {
    expect([parseCpus('1.5'), parseCpus('1,5'), parseCpus('.05'), parseCpus('2')]).toEqual([{ value: 1500 }, { value: 1500 }, { value: 50 }, { value: 2000 }]);
    for (const wrong of ['', '.', 'x', '1.2345', '-1']) expect(parseCpus(wrong), wrong).toHaveProperty('error');
  });
});

describe('rates, spans and counts', () => {
  it('are shown', () => {
    expect([bits(100_000), bits(1_500_000_000)]).toEqual(['100 kbit/s', '1.5 Gbit/s']);
    expect([span(900), span(86_400), span(90), span(null)]).toEqual(['15m', '1d', '90s', 'never']);
    expect([count(1234567), plural(1, 'image'), plural(2, 'image')]).toEqual(['1\u202f234\u202f567', '1 image', '2 images']);
  });
  it('are read', () => {
    expect([parseBits('100mbit'), parseBits('1.5 Gbit/s')]).toEqual([{ value: 100_000_000 }, { value: 1_500_000_000 }]);
    expect([parseSpan('15m'), parseSpan('7d'), parseSpan('30')]).toEqual([{ value: 900 }, { value: 604_800 }, { value: 30 }]);
    expect([parseCount('1 024'), parseCount('1024')]).toEqual([{ value: 1024 }, { value: 1024 }]);
    expect(parseBits(typedBits(1_500_000))).toEqual({ value: 1_500_000 });
    for (const wrong of ['never', '1w', '']) expect(parseSpan(wrong), wrong).toHaveProperty('error');
  });
  it('say nothing and everything only when it is so', () => {
    expect([percent(0, 10), percent(1, 1000), percent(999, 1000), percent(1000, 1000), percent(5, 0)]).toEqual(['0 %', '<1 %', '99 %', '100 %', '–']);
  });
});
