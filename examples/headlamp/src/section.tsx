// The section itself. Without the CRD, or the permission to list it, it is not shown.

import {
  SectionBox,
  SimpleTable,
  StatusLabel,
} from '@kinvolk/headlamp-plugin/lib/CommonComponents';
import { Diagnosis, Row, row, ServiceDiagnosis } from './diagnosis';

interface Props {
  cluster: string;
  namespace: string;
  service: string;
}

const COLOURS: Record<string, 'success' | 'error'> = { True: 'success', False: 'error' };

const COLUMNS = [
  { label: 'Name', datum: 'name' },
  {
    label: 'Ready',
    getter: (it: Row) => (
      <StatusLabel status={COLOURS[it.ready] ?? 'warning'}>{it.ready}</StatusLabel>
    ),
  },
  {
    label: 'Reason',
    getter: (it: Row) =>
      it.link ? (
        <a href={it.link} target="_blank" rel="noopener noreferrer">
          {it.reason}
        </a>
      ) : (
        it.reason
      ),
  },
  { label: 'Message', datum: 'message' },
  { label: 'Fix', getter: (it: Row) => <span style={{ whiteSpace: 'pre-wrap' }}>{it.fix}</span> },
];

/** What the ServiceDiagnoses of a Service say. */
export function DiagnosesOfService({ cluster, namespace, service }: Props) {
  const [all, error] = ServiceDiagnosis.useList({ cluster, namespace });
  if (error) {
    return null;
  }
  const diagnoses = all?.map(it => it.jsonData as Diagnosis);
  const rows = diagnoses?.filter(it => it.spec.serviceName === service).map(row) ?? null;
  return (
    <SectionBox title="Diagnosis">
      <SimpleTable
        columns={COLUMNS}
        data={rows}
        emptyMessage="No ServiceDiagnosis watches this Service."
      />
    </SectionBox>
  );
}
