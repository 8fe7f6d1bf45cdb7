-- SPDX-License-Identifier: Apache-2.0
-- What sqlite3 is recorded doing: a table with an index is filled, read by key, changed, joined,
-- grouped and sorted, in memory.
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL, tags TEXT);
CREATE TABLE sale(id INTEGER PRIMARY KEY, item INTEGER NOT NULL, amount INTEGER, note TEXT);
CREATE INDEX item_name ON item(name);
CREATE INDEX sale_item ON sale(item);
BEGIN;
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 18000)
  INSERT INTO item
  SELECT x, printf('name-%08x', x * 2654435761 % 4294967296), x % 997 / 7.0,
         replace(hex(zeroblob(x % 40)), '00', 'tag ')
  FROM n;
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 54000)
  INSERT INTO sale
  SELECT x, x * 48271 % 18000 + 1, x % 13, printf('note %d for %s', x, hex(x * 69621 % 65536))
  FROM n;
COMMIT;
SELECT count(*), sum(length(name)) FROM item;
UPDATE item SET name = name || '-' || id WHERE id % 3 = 0;
SELECT sum(length(list)) FROM (SELECT group_concat(note, '; ') AS list FROM sale GROUP BY item % 2500);
SELECT item.name, sum(sale.amount * item.price) AS total
  FROM sale JOIN item ON item.id = sale.item
  GROUP BY item.id ORDER BY total DESC, item.id LIMIT 5;
SELECT count(DISTINCT substr(note, 1, 12) || upper(note)) FROM sale;
DELETE FROM sale WHERE id % 4 = 1;
SELECT substr(name, 1, 7), count(*) FROM item GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3;
