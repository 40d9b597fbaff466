// The kind ServiceDiagnosis, as much of it as the section shows.

import { makeCustomResourceClass } from '@kinvolk/headlamp-plugin/lib/Crd';

/** A condition of the status; Ready sums the others up. */
interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
}

/** What a controller of svcdiag has written. */
interface Status {
  observedGeneration?: number;
  conditions?: Condition[];
  rootCause?: { message: string; remediation: string; link?: string };
}

/** A ServiceDiagnosis as the API server has it. */
export interface Diagnosis {
  metadata: { name: string; generation?: number };
  spec: { serviceName: string };
  status?: Status;
}

/** A row of the section. */
export interface Row {
  name: string;
  ready: string;
  reason: string;
  message: string;
  fix: string;
  link?: string;
}

export const ServiceDiagnosis = makeCustomResourceClass({
  apiInfo: [{ group: 'svcdiag.dev', version: 'v1alpha1' }],
  isNamespaced: true,
  singularName: 'servicediagnosis',
  pluralName: 'servicediagnoses',
  kind: 'ServiceDiagnosis',
});

/** What a diagnosis says of its present spec. A status of an older generation is about another one. */
export function row({ metadata, status }: Diagnosis): Row {
  const isCurrent = status?.observedGeneration === metadata.generation;
  const ready = isCurrent
    ? status?.conditions?.find(condition => condition.type === 'Ready')
    : undefined;
  const cause = isCurrent ? status?.rootCause : undefined;
  return {
    name: metadata.name,
    ready: ready?.status ?? 'Unknown',
    reason: ready?.reason ?? 'Pending',
    message: cause?.message ?? ready?.message ?? 'There is no verdict yet.',
    fix: cause?.remediation ?? '',
    // Whoever may write a status is not to put a script behind a link.
    link: cause?.link?.startsWith('https://') ? cause.link : undefined,
  };
}
