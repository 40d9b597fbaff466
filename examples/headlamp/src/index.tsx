// A section on the page of a Service: what its ServiceDiagnoses say.

import { registerDetailsViewSection } from '@kinvolk/headlamp-plugin/lib';
import type { DetailsViewSectionProps } from '@kinvolk/headlamp-plugin/lib';
import { DiagnosesOfService } from './section';

registerDetailsViewSection(({ resource }: DetailsViewSectionProps) => {
  const namespace = resource?.getNamespace();
  if (resource?.kind !== 'Service' || !namespace) {
    return null;
  }
  return (
    <DiagnosesOfService
      cluster={resource.cluster}
      namespace={namespace}
      service={resource.getName()}
    />
  );
});
