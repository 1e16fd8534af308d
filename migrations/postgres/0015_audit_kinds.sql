-- Further kinds of subjects: the program knows which there are.
ALTER TABLE audit DROP CONSTRAINT audit_subject_kind_check;
